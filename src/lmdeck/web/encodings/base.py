"""The interface of an encoding, which writes an answer's events for one kind of front end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from lmdeck._encoders.event_stream import encode_comment
from lmdeck.errors import LMStudioError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply
from lmdeck.web.requests import PageDecisions, PageQuestion, read_request

HEARTBEAT_FRAME = encode_comment("waiting")
AnswerEvent: TypeAlias = AgentEvent | Reply | LMStudioError
"""The events of a run, then its reply, or the error that ended it."""

STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",  # nginx sends every write immediately
}


class Encoder(Protocol):
    """The encoder of one answer."""

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event; empty if the front end does not need it."""
        ...


def _read(body: bytes, encoding: Encoding) -> tuple[PageQuestion | PageDecisions, Encoding]:
    return read_request(body), encoding


class Encoding(Struct, frozen=True, kw_only=True):
    """An encoding of answers: its name, the response headers, and a factory of encoders.

    Each answer has its own encoder.

    `read` decodes the request body of its front end; it returns the question, and the encoding with the ids of the request.
    """

    name: str
    encoder: Callable[[], Encoder]
    headers: Mapping[str, str]
    read: Callable[[bytes, Encoding], tuple[PageQuestion | PageDecisions, Encoding]] = _read
