"""Answers given as bytes: what comes is not validated, what goes is not cut, so that a test may send what no server should."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from lmdeck._streaming.sse import encode_event

if TYPE_CHECKING:
    from typing import Self

    from lmdeck.testing.connection import Parts, Wire

EVENT_STREAM = "text/event-stream"
DONE = encode_event(b"[DONE]")


class RawAnswer(Struct, frozen=True):
    """One answer, byte for byte: each step is a piece to send, or a number of seconds to wait.

    Status and headers go with the first piece. A single piece is sent with its length, several in HTTP's chunks.
    """

    steps: tuple[bytes | float, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = {}

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Make one of a value, as a JSON body."""
        return cls((json.dumps(value).encode(),), status, {"content-type": "application/json", **(headers or {})})

    @classmethod
    def frames(cls, *frames: object, done: bool = True) -> Self:
        """Make one of JSON values, each an event of a stream; a number waits so many seconds, bytes go as they are.

        A value with a `type` gives its event that name, as the typed streams do (`/api/v1/chat`, responses, messages).
        Another stream ends with `[DONE]`, unless `done` is off.
        """
        steps = [frame if isinstance(frame, bytes | int | float) else _event(frame) for frame in frames]
        if done and not any(map(_name, frames)):
            steps.append(DONE)
        return cls(tuple(steps), headers={"content-type": EVENT_STREAM, "cache-control": "no-cache"})

    async def play(self, wire: Wire, _: Parts | None = None) -> None:
        """Send it."""
        has_begun = False
        for step in self.steps:
            if not isinstance(step, bytes):
                await wire.wait(step)
                continue
            if not has_begun:
                await wire.head(self.status, self._headers())
                has_begun = True
            await wire.exactly(step)
        if not has_begun:
            await wire.head(self.status, self._headers())
        await wire.end()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        given = {name.lower(): value for name, value in self.headers.items()}
        pieces = [step for step in self.steps if isinstance(step, bytes)]
        if len(pieces) < 2 and given.get("content-type") != EVENT_STREAM:
            given.setdefault("content-length", str(len(b"".join(pieces))))
        return [(name.encode(), value.encode()) for name, value in given.items()]


def _event(value: object) -> bytes:
    return encode_event(json.dumps(value).encode(), _name(value))


def _name(value: object) -> str | None:
    name = value.get("type") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None
