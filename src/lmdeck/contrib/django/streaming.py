"""`stream_response`: stream an answer to the browser, under ASGI and WSGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import aclosing
from inspect import GEN_RUNNING, getgeneratorstate
from typing import cast

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.http import StreamingHttpResponse

from lmdeck._client.approve_callback import AnyApprove
from lmdeck._client.chat import AsyncChat, Chat
from lmdeck.contrib.django.clients import alm
from lmdeck.contrib.django.conf import configuration
from lmdeck.errors import ConfigurationError
from lmdeck.web.answer import OnEnd, OnEndAsync, ResumedRun, StreamedAnswer
from lmdeck.web.background_loop import iterate
from lmdeck.web.encodings import Encoding, find_encoding

WSGI_HEARTBEAT = 0.4
"""Short, because a WSGI server detects that the browser disconnected only when it writes."""


def stream_response(
    chat: Chat | AsyncChat,
    *,
    encoding: str | Encoding = "lmdeck",
    max_rounds: int | None = None,
    approve: AnyApprove = None,
    heartbeat: float | None = None,
    on_end: OnEnd | None = None,
    resumed: ResumedRun | None = None,
) -> ChatResponse:
    """Stream the answer to a chat as server-sent events.

    The chat runs when the response is sent, always with the async client; the view and the chat may be sync or async.
    `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI (with the
    ids of the client's run: `lmdeck.web.encodings.ag_ui(thread_id, run_id)`). Tools with handlers are
    run, in at most `max_rounds` rounds; `approve` is called before each tool call, or pauses the run (see `Chat.run`), and
    `resumed` is a paused run to resume. After `heartbeat` seconds of silence a comment is sent. When the browser disconnects,
    the model is stopped. `on_end` is called once with the reply, or the `PausedRun`; it may be async. If the browser
    disconnected or the answer failed, the reply is partial: `finish_reason` is `""`, and a problem `stopped`, `cut` or
    `failed` says how it ended. Errors, also those of `on_end`, are sent as events: with `DEBUG` in detail, otherwise as a
    neutral sentence with the number of the log entry.

    Raises:
        ConfigurationError: The chat belongs to a sync client other than `lm`, or the encoding is unknown.
    """
    chosen = find_encoding(encoding)
    if isinstance(chat, Chat) and chat.settings != alm.settings:
        raise ConfigurationError(
            "stream_response cannot use a sync client other than `lm`.",
            hint="Build the chat with `lm`, `alm` or an AsyncLMStudio.",
        )
    configured = configuration()
    rounds = max_rounds or configured.max_rounds
    answer = StreamedAnswer(
        lambda: _on_this_loop(chat),
        max_rounds=rounds,
        approve=approve,
        encoding=chosen,
        with_details=settings.DEBUG,
        resumed=resumed,
    )
    return ChatResponse(answer, chosen.headers, heartbeat=heartbeat or configured.heartbeat, on_end=on_end)


def _on_this_loop(chat: Chat | AsyncChat) -> AsyncChat:
    """Return the chat bound to this loop's client.

    A chat of the caller's own async client is unchanged.
    """
    if isinstance(chat, AsyncChat) and chat.settings != alm.settings:
        return chat
    return alm.adopt(chat)


class ChatResponse(StreamingHttpResponse):
    """A response of server-sent events, for ASGI (async iteration) and WSGI (sync iteration)."""

    def __init__(
        self, answer: StreamedAnswer, headers: Mapping[str, str], *, heartbeat: float, on_end: OnEnd | None
    ) -> None:
        self._answer = answer
        self._heartbeat = heartbeat
        self._on_end = on_end
        self._content = self._frames()
        self._blocking: Generator[bytes, None, None] | None = None
        super().__init__(self._content, headers=dict(headers))
        self.headers["Content-Encoding"] = "identity"  # otherwise Django's GZipMiddleware would buffer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the pieces, for an ASGI server."""
        try:
            async for piece in self._pieces():
                if self._answer.is_finished:
                    await self._end_async()
                if piece:
                    yield piece
        finally:
            await self._end_async()

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the pieces, for a WSGI server."""
        self._heartbeat = min(self._heartbeat, WSGI_HEARTBEAT)
        self._blocking = self._iterate()
        return self._blocking

    def close(self) -> None:
        """Stop the answer if it is still running, and close the response."""
        if (
            self._blocking is not None and getgeneratorstate(self._blocking) != GEN_RUNNING
        ):  # as in Django's test client
            self._blocking.close()
        super().close()

    def _iterate(self) -> Generator[bytes, None, None]:
        try:
            for piece in iterate(self._pieces()):
                if self._answer.is_finished:
                    self._end()
                if piece:
                    yield piece
        finally:
            self._end()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Iterate over the content as wrapped by middleware, then close the answer.

        Django itself does not close it.
        """
        async with aclosing(self._content):
            async for piece in cast("AsyncIterator[bytes]", self.streaming_content):
                yield piece

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answer.frames(self._heartbeat)) as frames:
            async for frame in frames:
                yield frame

    def _end(self) -> None:
        """Call `on_end` in the thread of the request."""
        on_end = self._on_end
        self._answer.end(async_to_sync(on_end) if on_end is not None and iscoroutinefunction(on_end) else on_end)

    async def _end_async(self) -> None:
        on_end = self._on_end
        awaitable = on_end if on_end is None or iscoroutinefunction(on_end) else sync_to_async(on_end)
        await self._answer.end_async(cast("OnEndAsync | None", awaitable))
