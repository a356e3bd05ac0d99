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

    from starlette.types import Receive, Scope

DRAIN_FACTOR = 4
"""A body that is too large is read up to this many times the limit, and discarded."""
DRAIN_SECONDS = 5.0
"""The longest time for which a body that is too large is read."""
BODY_SECONDS = 60.0
"""The longest time in which a body must arrive."""
T = TypeVar("T")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


class BodyRefusedError(Exception):
    """A request body is too large, or does not arrive; `status` is the answer's, 413 or 408."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


async def run_until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result; cancel it as soon as the client disconnects.

    Raises:
        ClientGoneError: The client disconnected; the work has been cancelled and has ended.
    """

    async def watch(scope: asyncio.Timeout) -> None:
        with suppress(Exception):  # a connection that cannot be read is gone as well
            await wait_for_disconnect(receive)
        scope.reschedule(0)

    scope = asyncio.timeout(None)  # it cancels the work, and distinguishes this from another cancellation
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


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the request body.

    One that is too large is read and discarded for a moment, because most clients read a refusal only after they sent all.

    Raises:
        BodyRefusedError: It is larger than `limit` bytes, or did not arrive within `BODY_SECONDS`.
        ClientGoneError: The client disconnected before the end of the body.
    """
    parts: list[bytes] = []
    size = 0
    is_too_large = _announced_length(scope) > limit
    try:
        async with asyncio.timeout(DRAIN_SECONDS if is_too_large else BODY_SECONDS) as time_limit:
            has_more = True
            while has_more and size <= DRAIN_FACTOR * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit and not is_too_large:
                    is_too_large = True
                    time_limit.reschedule(asyncio.get_running_loop().time() + DRAIN_SECONDS)
                if is_too_large:
                    parts.clear()
                has_more = message.get("more_body", False)
    except TimeoutError:
        if not is_too_large:
            text = f"The request body did not arrive within {BODY_SECONDS:g} s."
            hint = "Check the connection of the client, and send the request again."
            raise BodyRefusedError(408, text, hint) from None
    if is_too_large:
        text = f"The request body is larger than {limit} bytes."
        raise BodyRefusedError(413, text, "Send a shorter history or smaller images.")
    return b"".join(parts)


def _announced_length(scope: Scope) -> int:
    """Return the length that the header `Content-Length` announces; 0 without one."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(announced) if announced.isdigit() and len(announced) < 20 else 0
