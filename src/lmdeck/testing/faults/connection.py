"""The connection goes wrong: before the first byte of an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lmdeck.testing.faults.declaration import fault, pass_on

if TYPE_CHECKING:
    from lmdeck.testing.connection import Parts, Wire


@fault("error")
async def refuse(wire: Wire, answer: Parts, *, seconds: float = 0.2) -> None:  # noqa: ARG001  # the fake closes its port
    """Nobody listens on the port, for so many seconds."""
    await wire.reset()


@fault("error")
async def reset_at_once(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """The connection is reset before the first byte."""
    await wire.reset()


@fault("error")
async def close_at_once(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """The connection is closed without a byte: a pooled connection that the server had given up."""
    await wire.close()


@fault("error")
async def hang(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """The request is taken and never answered."""
    await wire.gone()


@fault("right")
async def slow_start(wire: Wire, answer: Parts, *, seconds: float = 0.3) -> None:
    """The first byte comes late: a model is being loaded, which is silent."""
    await asyncio.sleep(seconds)
    await pass_on(wire, answer, bytes)


@fault("error")
async def half_head(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """The connection ends within the headers."""
    wire.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await wire.close()


@fault("error")
async def no_http(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """Something answers that does not speak HTTP."""
    wire.raw(b"SSH-2.0-OpenSSH_9.6\r\n")
    await wire.close()
