"""The bodies of `/v1/chat/completions` as msgspec reads them.

Only the fields that lmdeck uses are read, no stricter than necessary. Fields that differ between servers are `Raw` and decoded
separately, so that an invalid `usage` does not make the answer unreadable.

Sources: LM Studio docs `3_openai-compat/chat-completions.md` and `2_rest/endpoints.md`; since LM Studio 0.3.23, gpt-oss models
have `reasoning` instead of `reasoning_content`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from lmdeck._late_patterns import late_pattern

_SURROGATES = late_pattern(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


class FunctionDelta(Struct, gc=False):
    """The function part of a tool-call delta.

    Arguments are text or, from some servers, the object itself.
    """

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class ToolDelta(Struct, gc=False):
    """A piece of a tool call; index, id and name may each be missing, empty, late or wrong."""

    index: int | None = None
    id: str | int | None = None
    function: FunctionDelta | None = None


class Delta(Struct, gc=False):
    """The new part of a choice or, as `message`, the whole of an answer that was not streamed.

    `function_call` is OpenAI's older field for a single call, which some servers still send instead of `tool_calls`.
    """

    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolDelta] | None = None
    function_call: FunctionDelta | None = None
    refusal: str | None = None

    @property
    def calls(self) -> list[ToolDelta]:
        """The deltas of calls, including one in the older field.

        If both fields are set, they have the same call.
        """
        if self.tool_calls:
            return self.tool_calls
        call = self.function_call
        return [ToolDelta(function=call)] if call is not None and (call.name or call.arguments) else []


class Choice(Struct, gc=False):
    """One of the choices; LM Studio sends one, with index 0."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    index: int | None = 0
    logprobs: Any = None


class WireCompletion(Struct, gc=False):
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


def content_text(parts: list[dict[str, Any]]) -> str:
    """Return the joined texts of a list of parts."""
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def without_lone_surrogates(data: bytes) -> bytes:
    """Return JSON with lone surrogates replaced by U+FFFD."""
    return _SURROGATES.sub(lambda match: match[1] or rb"\ufffd", data)
