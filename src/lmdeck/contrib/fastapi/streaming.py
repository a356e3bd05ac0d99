"""`stream_response`: an answer to the browser while the model writes it, stopped when the browser leaves."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck.server.delivery import ClientGoneError, attended
from lmdeck.web.answer import Answer
from lmdeck.web.encodings.base import find_encoding

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
    what had come of it (`finish_reason` is `""`) where the browser left or the answer failed. An error is sent as an event.

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the events as they come."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            with suppress(ClientGoneError):
                await attended(receive, self._send(send))
        finally:
            await self._end()

    async def _send(self, send: Send) -> None:
        async with aclosing(self.answer.frames(self._heartbeat)) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(self) -> None:
        tell, self._on_end = self._on_end, None
        if tell is None or not self.answer.was_asked:
            return
        if inspect.iscoroutinefunction(tell):
            await tell(self.answer.reply)
        else:
            await run_in_threadpool(tell, self.answer.reply)
