"""`stream_response`: stream an answer to the browser, and stop it on a disconnect."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, cast

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmdeck._incoming.disconnect import ClientGoneError, run_until_disconnect
from lmdeck.web.answer import OnEnd, OnEndAsync, ResumedRun, StreamedAnswer
from lmdeck.web.encodings import Encoding, find_encoding

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from lmdeck._client.approve_callback import AnyApprove
    from lmdeck._client.chat import AsyncChat

HEARTBEAT = 15.0


def stream_response(
    chat: AsyncChat,
    *,
    encoding: str | Encoding = "lmdeck",
    max_rounds: int = 8,
    approve: AnyApprove = None,
    heartbeat: float = HEARTBEAT,
    on_end: OnEnd | None = None,
    resumed: ResumedRun | None = None,
) -> ChatResponse:
    """Stream the answer to a chat as server-sent events.

    `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI (with the
    ids of the client's run: `lmdeck.web.encodings.ag_ui(thread_id, run_id)`). Tools with handlers are
    run, in at most `max_rounds` rounds; `approve` is called before each tool call, or pauses the run (see `Chat.run`), and
    `resumed` is a paused run to resume. After `heartbeat` seconds of silence a comment is sent. When the browser disconnects,
    the model is stopped immediately. `on_end` is called once with the reply, or the `PausedRun`. If the browser disconnected
    or the answer failed, it is partial: `finish_reason` is `""`, and a problem `stopped`, `cut` or `failed` says how it ended.
    Errors, also those of `on_end`, are sent as events: in debug mode with details, otherwise as a neutral sentence with the
    number of the log entry.

    Raises:
        ConfigurationError: The encoding is unknown.
    """
    chosen = find_encoding(encoding)
    answer = StreamedAnswer(lambda: chat, max_rounds=max_rounds, approve=approve, encoding=chosen, resumed=resumed)
    return ChatResponse(answer, chosen.headers, heartbeat=heartbeat, on_end=on_end)


class ChatResponse(Response):
    """A response of server-sent events that detects a disconnect even while it writes nothing."""

    def __init__(
        self, answer: StreamedAnswer, headers: Mapping[str, str], *, heartbeat: float, on_end: OnEnd | None
    ) -> None:
        self.answer = answer
        self.status_code = 200
        self.background = None
        self._heartbeat = heartbeat
        self._on_end = on_end
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; errors have details if the application is in debug mode."""
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
                if self.answer.is_finished:
                    await self._end()
                if frame:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(self) -> None:
        on_end = self._on_end
        if on_end is not None and not inspect.iscoroutinefunction(on_end):
            await self.answer.end_async(lambda reply: run_in_threadpool(on_end, reply))
        else:
            await self.answer.end_async(cast("OnEndAsync | None", on_end))
