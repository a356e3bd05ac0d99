"""Faults of the connection, before the first byte of a response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lmdeck.testing.faults.declaration import fault, send_changed

if TYPE_CHECKING:
    from lmdeck.testing.fake_connection import PlannedResponse, Wire


@fault("error", closes_port=True)
async def refuse(wire: Wire, _: PlannedResponse, *, seconds: float = 0.2) -> None:  # noqa: ARG001  # used by the fake
    """No process listens on the port, for the given number of seconds."""
    await wire.reset()


@fault("error")
async def reset_at_once(wire: Wire, _: PlannedResponse) -> None:
    """The connection is reset before the first byte."""
    await wire.reset()


@fault("error")
async def close_at_once(wire: Wire, _: PlannedResponse) -> None:
    """The connection is closed without a byte, as a stale pooled connection is."""
    await wire.close()


@fault("error")
async def hang(wire: Wire, _: PlannedResponse) -> None:
    """The request is accepted and never answered."""
    await wire.wait_for_disconnect()


@fault("right")
async def slow_start(wire: Wire, response: PlannedResponse, *, seconds: float = 0.3) -> None:
    """The first byte arrives late, as while a model is being loaded."""
    await asyncio.sleep(seconds)
    await send_changed(wire, response, bytes)


@fault("error")
async def half_head(wire: Wire, _: PlannedResponse) -> None:
    """The connection ends in the middle of the headers."""
    wire.write_raw(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await wire.close()


@fault("error")
async def no_http(wire: Wire, _: PlannedResponse) -> None:
    """The response is not HTTP."""
    wire.write_raw(b"SSH-2.0-OpenSSH_9.6\r\n")
    await wire.close()
