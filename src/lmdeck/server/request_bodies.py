"""The body of a request, read by an application in front of the server and handed on to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmdeck._incoming.disconnect import BodyRefusedError, ClientGoneError, read_body
from lmdeck.server.errors import body_refused
from lmdeck.server.http_responses import json_response
from lmdeck.server.requests.body import MAX_BODY_BYTES

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

__all__ = ["read_or_refuse", "with_body"]


async def read_or_refuse(scope: Scope, receive: Receive, send: Send) -> bytes | None:
    """Return the body of a request; None if it was refused, or the client has left."""
    try:
        return await read_body(scope, receive, MAX_BODY_BYTES)
    except BodyRefusedError as error:
        refusal = body_refused(error)
        await json_response(refusal.body(scope["path"]), refusal.status)(scope, receive, send)
    except ClientGoneError:
        pass
    return None


def with_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body, then the remaining messages."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return pending.pop() if pending else await receive()

    return receive_again
