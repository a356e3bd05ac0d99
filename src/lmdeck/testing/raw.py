"""Raw responses: requests are not validated, and bytes are sent unmodified."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from lmdeck._encoders.event_stream import encode_event

if TYPE_CHECKING:
    from typing import Self

    from lmdeck.testing.fake_connection import PlannedResponse, Wire

EVENT_STREAM = "text/event-stream"
DONE = encode_event(b"[DONE]")


class RawAnswer(Struct, frozen=True):
    """One answer, byte for byte; each step is a piece to send or a number of seconds to wait.

    Status and headers are sent with the first piece. A single piece has a `Content-Length`, several are sent chunked.
    """

    steps: tuple[bytes | float, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = {}

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """Return a raw answer with a JSON body."""
        return cls((json.dumps(value).encode(),), status, {"content-type": "application/json", **(headers or {})})

    @classmethod
    def frames(cls, *frames: object, done: bool = True) -> Self:
        """Return a raw answer with JSON values as events.

        A number is a wait in seconds, bytes are sent unmodified.

        The `type` of a value becomes the name of its event, as in typed streams (`/api/v1/chat`, responses, messages).
        Other streams end with `[DONE]`, unless `done` is False.
        """
        steps = [frame if isinstance(frame, bytes | int | float) else _event(frame) for frame in frames]
        if done and not any(map(_name, frames)):
            steps.append(DONE)
        return cls(tuple(steps), headers={"content-type": EVENT_STREAM, "cache-control": "no-cache"})

    async def send(self, wire: Wire, _: PlannedResponse | None = None) -> None:
        """Send the answer."""
        has_started = False
        for step in self.steps:
            if not isinstance(step, bytes):
                await wire.wait(step)
                continue
            if not has_started:
                await wire.start(self.status, self._headers())
                has_started = True
            await wire.send_unsplit(step)
        if not has_started:
            await wire.start(self.status, self._headers())
        await wire.end()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = {name.lower(): value for name, value in self.headers.items()}
        pieces = [step for step in self.steps if isinstance(step, bytes)]
        if len(pieces) < 2 and headers.get("content-type") != EVENT_STREAM:
            headers.setdefault("content-length", str(len(b"".join(pieces))))
        return [(name.encode(), value.encode()) for name, value in headers.items()]


def _event(value: object) -> bytes:
    return encode_event(json.dumps(value).encode(), _name(value))


def _name(value: object) -> str | None:
    name = value.get("type") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) else None
