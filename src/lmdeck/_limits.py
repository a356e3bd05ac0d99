"""How much of an answer is kept at most: a model can loop for ever, and a server can be anything."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Named limits, in bytes unless their name says otherwise; what is over one is an error that names it."""

    line_bytes: int = 8 << 20
    event_bytes: int = 16 << 20
    answer_bytes: int = 256 << 20
    raw_bytes: int = 4 << 20
    error_body_bytes: int = 1 << 20
    tool_arguments_chars: int = 16 << 20
    tool_calls: int = 256


DEFAULT_LIMITS = Limits()
