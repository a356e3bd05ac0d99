"""The bodies of `/v1/chat/completions` as msgspec reads them: only what lmdeck uses, and no stricter than it must be.

Fields that vary in the wild are kept as `Raw` and read when they are there, so that an odd `usage` cannot lose an answer.
Sources: LM Studio docs `3_openai-compat/chat-completions.md` and `2_rest/endpoints.md`; `reasoning` instead of
`reasoning_content` is what gpt-oss models got in LM Studio 0.3.23.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

__all__ = [
    "Choice",
    "Completion",
    "Delta",
    "FunctionDelta",
    "ToolDelta",
    "content_text",
    "lenient",
    "speed_in",
    "usage_in",
    "without_lone_surrogates",
]

_SURROGATES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


class FunctionDelta(Struct, gc=False):
    """The function part of a tool-call delta; arguments are text, or, from some servers, the object itself."""

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class ToolDelta(Struct, gc=False):
    """A piece of a tool call. Index, id and name may each be missing, empty, late or wrong."""

    index: int | None = None
    id: str | int | None = None
    function: FunctionDelta | None = None


class Delta(Struct, gc=False):
    """What is new in a chunk, or, as `message`, all of a body that was not streamed."""

    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolDelta] | None = None
    refusal: str | None = None


class Choice(Struct, gc=False):
    """One of the choices; LM Studio sends one, at index 0."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0
    logprobs: Any = None


class Completion(Struct, gc=False):
    """A chunk or a whole body: the two differ only in `delta` and `message`."""

    choices: list[Choice] | None = None
    id: str | None = ""
    model: str | None = ""
    object: str | None = ""
    usage: Raw = Raw()
    stats: Raw = Raw()
    model_info: Raw = Raw()
    runtime: Raw = Raw()
    timings: Raw = Raw()
    error: Raw = Raw()


def content_text(content: str | list[dict[str, Any]]) -> str:
    """Give content as text; of a list of parts, the text parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if isinstance(part.get("text"), str))


def without_lone_surrogates(data: bytes) -> bytes:
    """Put U+FFFD for each half of a surrogate pair in JSON; whole pairs, and escaped backslashes, stay as they are."""
    return _SURROGATES.sub(lambda match: match[1] or rb"\ufffd", data)


def lenient(raw: Raw) -> dict[str, Any]:
    """Decode an optional object; what is missing or no object is an empty one."""
    try:
        value = msgspec.json.decode(raw) if len(bytes(raw)) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def usage_in(given: dict[str, Any]) -> dict[str, Any]:
    """Return a usage flat: what was cached or reasoning stands in OpenAI's `…_details`, or beside the counts already."""
    read, written = given.get("prompt_tokens_details"), given.get("completion_tokens_details")
    flat = dict(given)
    if isinstance(read, dict):
        flat.setdefault("cached_tokens", read.get("cached_tokens"))
    if isinstance(written, dict):
        flat.setdefault("reasoning_tokens", written.get("reasoning_tokens"))
    return flat


def speed_in(timings: dict[str, Any]) -> dict[str, float]:
    """Return llama.cpp's `timings` under the names of `Stats`, in seconds (llama.cpp's `tools/server/README.md`)."""
    figures = {
        "time_to_first_token": (timings.get("prompt_ms"), 1000),
        "generation_time": (timings.get("predicted_ms"), 1000),
        "tokens_per_second": (timings.get("predicted_per_second"), 1),
    }
    return {
        name: value / unit
        for name, (value, unit) in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    }
