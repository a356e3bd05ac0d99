"""Upper bounds on buffered data.

A model can generate endlessly, and a server can send anything.
"""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """The limits of one answer, in bytes unless the name says otherwise.

    Exceeding one raises an error, except `raw_bytes`: that much of a stream is stored for `Reply.raw`; 0 stores nothing.
    """

    line_bytes: int = 8 << 20
    event_bytes: int = 16 << 20
    answer_bytes: int = 256 << 20
    raw_bytes: int = 4 << 20
    error_body_bytes: int = 1 << 20
    tool_arguments_chars: int = 16 << 20
    tool_calls: int = 256
    nested_values: int = 128


DEFAULT_LIMITS = Limits()
MAX_IMAGE_BYTES = 50 << 20
FETCH_SECONDS = 30.0
"""How long the download of an image may take."""
