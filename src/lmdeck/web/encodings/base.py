"""What an encoding is: the events of an answer, written as server-sent events for one kind of front end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from lmdeck._streaming.sse import encode_comment
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply

BEAT = encode_comment("waiting")
Happening: TypeAlias = AgentEvent | Reply | LMStudioError
"""The events of a run, then its reply, or the error that ended it."""

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx passes on what it gets
}


class Encoder(Protocol):
    """Encodes one answer."""

    def encode(self, event: Happening) -> bytes:
        """Return the bytes for an event; none if the front end need not know of it."""
        ...


class Encoding(Struct, frozen=True, kw_only=True):
    """A way to encode answers: its name, the headers of a response, and a factory of encoders, one per answer."""

    name: str
    encoder: Callable[[], Encoder]
    headers: Mapping[str, str]
