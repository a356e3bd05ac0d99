"""The figures of an answer: token counts, times, and details of the model and the runtime.

They are read leniently: a figure that is missing, invalid or of the wrong type is left out, so that the answer is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from lmdeck._responses.usage import flatten_usage, stats_of_timings, with_draft_tokens
from lmdeck._streaming.wire_chunks import WireCompletion
from lmdeck.messages import ModelDetails, Runtime
from lmdeck.stats import Stats, Usage

T = TypeVar("T", bound=msgspec.Struct)
NO_STATS = Stats()
NO_FIGURES: Mapping[str, Any] = MappingProxyType({})


class _Details(Struct, gc=False):
    """OpenAI's `prompt_tokens_details` and `completion_tokens_details`."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _WireUsage(Struct, gc=False):
    """The usage as most servers send it."""

    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int | UnsetType = UNSET
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_NO_DETAILS = _Details()
_NO_USAGE = _WireUsage()
_decode_usage = msgspec.json.Decoder(_WireUsage | None, strict=False).decode


class Figures(Struct):
    """The figures of one answer, from all chunks that have any; later ones replace earlier ones."""

    usage: Usage | None = None
    stats: Stats = NO_STATS
    model_info: ModelDetails | None = None
    runtime: Runtime | None = None
    sent_stats: Mapping[str, Any] = NO_FIGURES

    def read(self, completion: WireCompletion) -> None:
        """Read the figures of a chunk or a whole body."""
        if completion.usage:
            self.usage = _usage(completion.usage) or self.usage
        if completion.timings:
            self.sent_stats = {**stats_of_timings(_decode_object(completion.timings)), **self.sent_stats}
        if completion.stats:
            self.sent_stats = with_draft_tokens(_decode_object(completion.stats)) or self.sent_stats
        if completion.stats or completion.timings:
            self.stats = _convert(self.sent_stats, Stats)
        if completion.model_info:
            self.model_info = _decode(completion.model_info, ModelDetails)
        if completion.runtime:
            self.runtime = _decode(completion.runtime, Runtime)


def _usage(raw: Raw) -> Usage | None:
    """Return the tokens that a server counted, or None if it reports nothing.

    Fields of wrong types are read leniently.
    """
    try:
        wire = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        usage = _decode_object(raw)
        return _convert(flatten_usage(usage), Usage) if usage else None
    if wire is None or wire == _NO_USAGE:
        return None
    prompt, completion = wire.prompt_tokens_details or _NO_DETAILS, wire.completion_tokens_details or _NO_DETAILS
    return Usage(
        prompt_tokens=wire.prompt_tokens or 0,
        completion_tokens=wire.completion_tokens or 0,
        total_tokens=wire.total_tokens or 0,
        cached_tokens=prompt.cached_tokens if wire.cached_tokens is None else wire.cached_tokens,
        reasoning_tokens=completion.reasoning_tokens if wire.reasoning_tokens is None else wire.reasoning_tokens,
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
