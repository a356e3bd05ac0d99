"""The figures of an answer: token counts, times, and details of the model and the runtime.

They are read leniently: a figure that is missing, invalid or of the wrong type is left out, so that the answer is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from lmdeck.messages import ModelDetails, Runtime
from lmdeck.stats import Stats, Usage

T = TypeVar("T", bound=msgspec.Struct)
DRAFT_TOKEN_COUNTS = ("total_draft_tokens_count", "accepted_draft_tokens_count", "rejected_draft_tokens_count")
ENDED_EARLY: Mapping[str | None, str] = {
    "failed": "LM Studio ended the answer early: the generation failed.",
    "modelUnloaded": "LM Studio ended the answer early: the model was unloaded.",
    "userStopped": "LM Studio ended the answer early: somebody stopped it there.",
}
"""What the stop reasons of an answer mean that is not whole, although it has a finish reason.

Source: lmstudio-js, `LLMPredictionStopReason`.
"""
NO_STATS = Stats()
NO_USAGE = Usage()
NO_FIGURES: Mapping[str, Any] = MappingProxyType({})


class _Details(Struct, gc=False):
    """OpenAI's `prompt_tokens_details` and `completion_tokens_details`."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _WireUsage(Struct, gc=False):
    """The usage as most servers send it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_NO_DETAILS = _Details()
_NO_USAGE = _WireUsage()
_decode_usage = msgspec.json.Decoder(_WireUsage | None, strict=False).decode


class SentFigures(Protocol):
    """The figures in a chunk or a whole body, as JSON; empty if they are missing."""

    usage: Raw
    stats: Raw
    timings: Raw
    model_info: Raw
    runtime: Raw


class Figures(Struct):
    """The figures of one answer, from all chunks that have any; later ones replace earlier ones."""

    usage: Usage | None = None
    stats: Stats = NO_STATS
    model_info: ModelDetails | None = None
    runtime: Runtime | None = None
    sent_stats: Mapping[str, Any] = NO_FIGURES

    def read(self, sent: SentFigures) -> None:
        """Read the figures of a chunk or a whole body."""
        if sent.usage:
            self.usage = _usage(sent.usage, self.usage)
        if sent.timings:
            self.sent_stats = {**stats_of_timings(_decode_object(sent.timings)), **self.sent_stats}
        if sent.stats:
            self.sent_stats = with_draft_tokens(_decode_object(sent.stats)) or self.sent_stats
        if sent.stats or sent.timings:
            self.stats = _convert(self.sent_stats, Stats)
        if sent.model_info:
            self.model_info = _decode(sent.model_info, ModelDetails)
        if sent.runtime:
            self.runtime = _decode(sent.runtime, Runtime)


def _usage(raw: Raw, known: Usage | None) -> Usage | None:
    """Return the tokens that a server counted, or None if it reports nothing.

    Counts that are missing or null stay as they are known. Fields of wrong types are read leniently.
    """
    try:
        sent = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        sent = _convert(flatten_usage(_decode_object(raw)), _WireUsage)
    if sent is None or sent == _NO_USAGE:
        return known
    prompt, completion = sent.prompt_tokens_details or _NO_DETAILS, sent.completion_tokens_details or _NO_DETAILS
    cached = prompt.cached_tokens if sent.cached_tokens is None else sent.cached_tokens
    reasoning = completion.reasoning_tokens if sent.reasoning_tokens is None else sent.reasoning_tokens
    known = known or NO_USAGE
    return Usage(
        prompt_tokens=known.prompt_tokens if sent.prompt_tokens is None else sent.prompt_tokens,
        completion_tokens=known.completion_tokens if sent.completion_tokens is None else sent.completion_tokens,
        total_tokens=known.total_tokens if sent.total_tokens is None else sent.total_tokens,
        cached_tokens=known.cached_tokens if cached is None else cached,
        reasoning_tokens=known.reasoning_tokens if reasoning is None else reasoning,
    )


def _decode(raw: Raw, shape: type[T]) -> T:
    """Return a JSON object as a struct; members that do not fit are read leniently."""
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _convert(_decode_object(raw), shape)


def _decode_object(raw: Raw) -> dict[str, Any]:
    """Return a JSON object; an empty one if the JSON is broken or something else."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def flatten_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Return a usage with cached and reasoning tokens beside the totals.

    OpenAI nests them in `…_tokens_details`.
    """
    prompt, completion = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    flat = dict(usage)
    if isinstance(prompt, dict):
        flat.setdefault("cached_tokens", prompt.get("cached_tokens"))
    if isinstance(completion, dict):
        flat.setdefault("reasoning_tokens", completion.get("reasoning_tokens"))
    return flat


def with_draft_tokens(stats: dict[str, Any]) -> dict[str, Any]:
    """Return LM Studio's `stats` with the counts of speculative decoding as one object.

    Source: LM Studio docs, `api-changelog.md`.
    """
    if stats.keys().isdisjoint(DRAFT_TOKEN_COUNTS):
        return stats
    total, accepted, rejected = map(stats.get, DRAFT_TOKEN_COUNTS)
    return {**stats, **_draft_tokens(total, accepted, rejected)}


def _draft_tokens(total: object, accepted: object, rejected: object) -> dict[str, Any]:
    counts = {"total": total, "accepted": accepted, "rejected": rejected}
    known = {name: int(count) for name, count in counts.items() if isinstance(count, (int, float))}
    return {"draft_tokens": known} if known else {}


def stats_of_timings(timings: dict[str, Any]) -> dict[str, Any]:
    """Return llama.cpp's `timings` under the names of `Stats`, in seconds.

    Source: llama.cpp's `tools/server/README.md`.
    """
    total, accepted = timings.get("draft_n"), timings.get("draft_n_accepted")
    rejected = total - accepted if isinstance(total, int) and isinstance(accepted, int) else None
    figures = {
        "time_to_first_token": (timings.get("prompt_ms"), 1000),
        "generation_time": (timings.get("predicted_ms"), 1000),
        "tokens_per_second": (timings.get("predicted_per_second"), 1),
    }
    speed = {
        name: value / unit
        for name, (value, unit) in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12
    }
    return {**speed, **_draft_tokens(total, accepted, rejected)}


def with_openai_names(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the token counts of the other endpoints under OpenAI's names.

    Cached and reasoning tokens are included. Anthropic's API counts `cache_read_input_tokens` separately from `input_tokens`;
    here they are part of the prompt.
    """
    cached = _count(usage.get("cache_read_input_tokens"))
    counts = {
        "prompt_tokens": _count(usage.get("input_tokens")),
        "completion_tokens": _count(usage.get("output_tokens", usage.get("total_output_tokens"))),
    }
    known = {name: value for name, value in counts.items() if value is not None}
    if cached is not None and "prompt_tokens" in known:
        known["prompt_tokens"] += cached
    total = _count(usage.get("total_tokens"))
    known["total_tokens"] = sum(known.values()) if total is None else total
    read, written = _object(usage.get("input_tokens_details")), _object(usage.get("output_tokens_details"))
    details = {
        "cached_tokens": _count(read.get("cached_tokens")) if cached is None else cached,
        "reasoning_tokens": _count(written.get("reasoning_tokens", usage.get("reasoning_output_tokens"))),
    }
    return known | {name: value for name, value in details.items() if value is not None}


def _count(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _convert(figures: Mapping[str, Any], shape: type[T]) -> T:
    """Return figures as a struct; fields of the wrong type are left out."""
    try:
        return msgspec.convert(figures, shape, strict=False)
    except msgspec.ValidationError:
        return msgspec.convert(
            {name: each for name, each in figures.items() if _fits(name, each, shape)}, shape, strict=False
        )


def _fits(name: str, value: object, shape: type[msgspec.Struct]) -> bool:
    try:
        msgspec.convert({name: value}, shape, strict=False)
    except msgspec.ValidationError:
        return False
    return True
