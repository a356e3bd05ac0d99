"""`stream_response`: an answer to the browser while the model writes it, stopped when the browser leaves."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck.web.answer import Answer
from lmdeck.web.disconnect import ClientGoneError, run_until_disconnect
from lmdeck.web.encodings import find_encoding

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from lmdeck._client.chat import AsyncChat
    from lmdeck._client.tool_runs import Approve
    from lmdeck.messages import Reply

__all__ = ["ChatResponse", "stream_response"]

OnEnd = Callable[["Reply"], Awaitable[object] | object]
HEARTBEAT = 15.0


def stream_response(
    chat: AsyncChat,
    *,
    encoding: str = "lmdeck",
    max_rounds: int = 8,
    approve: Approve | None = None,
    heartbeat: float = HEARTBEAT,
    on_end: OnEnd | None = None,
) -> ChatResponse:
    """Answer a request with a chat's answer, as server-sent events while it is written.

    `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI. Tools with handlers are
    run, for at most `max_rounds`; `approve` is asked before each. A comment is sent where nothing else was for `heartbeat`
    seconds. When the browser leaves, the model is stopped at once. `on_end` is called once, with the whole reply, or with
    what had come of it where the browser left or the answer failed: then `finish_reason` is `""`, and a problem `stopped`,
    `cut` or `failed` says how it ended. An error is sent as an event, one of `on_end` too; visitors see a neutral sentence and
    a number, an application in debug mode the error itself.

    Raises:
        ConfigurationError: There is no such encoding.
    """
    chosen = find_encoding(encoding)
    answer = Answer(lambda: chat, max_rounds=max_rounds, approve=approve, encoding=chosen)
    return ChatResponse(answer, chosen.headers, heartbeat=heartbeat, on_end=on_end)


class ChatResponse(Response):
    """A response of server-sent events; the connection is watched all along, not only when something is written."""

    def __init__(self, answer: Answer, headers: Mapping[str, str], *, heartbeat: float, on_end: OnEnd | None) -> None:
        self.answer = answer
        self.status_code = 200
        self.background = None
        self._heartbeat = heartbeat
        self._on_end = on_end
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come; with details of errors where the application is in debug mode."""
        self.answer.with_details = bool(getattr(scope.get("app"), "debug", False))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            with suppress(ClientGoneError):
                await run_until_disconnect(receive, self._send(send))
        finally:
            await self._end()

    async def _send(self, send: Send) -> None:
        async with aclosing(self.answer.frames(self._heartbeat)) as frames:
            async for frame in frames:
                if self.answer.is_over:
                    await self._end()
                if frame:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(self) -> None:
        tell = self._on_end
        if tell is not None and not inspect.iscoroutinefunction(tell):
            await self.answer.end_async(lambda reply: run_in_threadpool(tell, reply))
        else:
            await self.answer.end_async(cast("Callable[[Reply], Awaitable[object]] | None", tell))
