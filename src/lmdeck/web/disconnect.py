"""ASGI requests whose client may leave: work that stops with it, and bodies of bounded size.

Starlette's own `StreamingResponse` notices a client that has left only when it writes. A request that waits in a queue,
or for its prompt to be processed, writes nothing; so the connection is watched from the beginning.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

DRAINED = 4
T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; cancel it as soon as the client disconnects.

    Raises:
        ClientGoneError: The client disconnected; the work has been cancelled and has ended.
    """

    async def watch(scope: asyncio.Timeout) -> None:
        with suppress(Exception):  # a connection that cannot be read is gone as well
            await wait_for_disconnect(receive)
        scope.reschedule(0)

    scope = asyncio.timeout(None)  # it cancels the work, and tells this from another cancellation
    try:
        async with scope:
            watcher = asyncio.create_task(watch(scope))
            try:
                return await work
            finally:
                watcher.cancel()
    except Exception as error:
        if scope.expired():
            raise ClientGoneError from error
        raise


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; late parts of the request body are ignored."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the request body; of one longer than `limit` bytes, the first `limit` + 1.

    A longer one is read to its end, because most senders read a refusal only then; but not beyond `DRAINED` times the limit.
    """
    body = bytearray()
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        body += part[: limit + 1 - len(body)]
        is_last = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if is_last or size > DRAINED * limit:
            return bytes(body)
