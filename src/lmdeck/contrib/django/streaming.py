"""`stream_response`: an answer to the browser while the model writes it, under ASGI and under WSGI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import aclosing
from inspect import GEN_RUNNING, getgeneratorstate
from typing import cast

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.http import StreamingHttpResponse

from lmdeck._client.chat import AsyncChat, Chat
from lmdeck._client.tool_runs import Approve
from lmdeck.contrib.django.clients import alm
from lmdeck.contrib.django.conf import configuration
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Reply
from lmdeck.web.answer import Answer
from lmdeck.web.background_loop import iterate
from lmdeck.web.encodings import find_encoding

__all__ = ["ChatResponse", "stream_response"]

WSGI_HEARTBEAT = 0.4
"""A WSGI server notices that the browser left only when it writes."""

OnEnd = Callable[[Reply], object]


def stream_response(
    chat: Chat | AsyncChat,
    *,
    encoding: str = "lmdeck",
    max_rounds: int | None = None,
    approve: Approve | None = None,
    heartbeat: float | None = None,
    on_end: OnEnd | None = None,
) -> ChatResponse:
    """Answer a request with a chat's answer, as server-sent events while it is written.

    The chat is asked when the response is sent, always with the async client; the view may be sync or async, and so may the
    chat. `encoding` is "lmdeck" for lmdeck's page, "vercel" for the AI SDK's `useChat`, "ag-ui" for AG-UI. Tools with handlers
    are run, for at most `max_rounds`; `approve` is asked before each. A comment is sent where nothing else was for `heartbeat`
    seconds. When the browser leaves, the model is stopped. `on_end` is called once, with the whole reply, or with what had come
    of it where the browser left or the answer failed: then `finish_reason` is `""`, and a problem `stopped`, `cut` or `failed`
    says how it ended; it may be async. An error of the answer or of `on_end` is sent as an event, since the response has begun:
    with `DEBUG` as it is, to visitors as a neutral sentence and the number under which the log has it.

    Raises:
        ConfigurationError: The chat is of a sync client other than `lm`, or there is no such encoding.
    """
    chosen = find_encoding(encoding)
    if isinstance(chat, Chat) and chat.settings != alm.settings:
        raise ConfigurationError(
            "stream_response cannot ask with a sync client of your own.",
            hint="Build the chat with `lm`, `alm` or an AsyncLMStudio.",
        )
    configured = configuration()
    rounds = max_rounds or configured.max_rounds
    answer = Answer(
        lambda: _on_this_loop(chat), max_rounds=rounds, approve=approve, encoding=chosen, with_details=settings.DEBUG
    )
    return ChatResponse(answer, chosen.headers, heartbeat=heartbeat or configured.heartbeat, on_end=on_end)


def _on_this_loop(chat: Chat | AsyncChat) -> AsyncChat:
    """Give the chat as one of this loop's client, unless it is of an async client of the caller's own."""
    if isinstance(chat, AsyncChat) and chat.settings != alm.settings:
        return chat
    return alm.adopt(chat)


class ChatResponse(StreamingHttpResponse):
    """A response of server-sent events. It streams under ASGI and WSGI alike: whoever iterates it says which it is."""

    def __init__(self, answer: Answer, headers: Mapping[str, str], *, heartbeat: float, on_end: OnEnd | None) -> None:
        self._answer = answer
        self._heartbeat = heartbeat
        self._on_end = on_end
        self._content = self._frames()
        self._pulling: Generator[bytes, None, None] | None = None
        super().__init__(self._content, headers=dict(headers))
        self.headers["Content-Encoding"] = "identity"  # Django's GZipMiddleware would collect before it sends

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the pieces to an ASGI server."""
        try:
            async for piece in self._pieces():
                if self._answer.is_finished:
                    await self._end_async()
                if piece:
                    yield piece
        finally:
            await self._end_async()

    def __iter__(self) -> Iterator[bytes]:
        """Give the pieces to a WSGI server."""
        self._heartbeat = min(self._heartbeat, WSGI_HEARTBEAT)
        self._pulling = self._pull()
        return self._pulling

    def close(self) -> None:
        """End the answer, if it is still being written, and what else belongs to the response."""
        if self._pulling is not None and getgeneratorstate(self._pulling) != GEN_RUNNING:  # as in Django's test client
            self._pulling.close()
        super().close()

    def _pull(self) -> Generator[bytes, None, None]:
        try:
            for piece in iterate(self._pieces()):
                if self._answer.is_finished:
                    self._end()
                if piece:
                    yield piece
        finally:
            self._end()

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Give the content, with whatever middleware has put around it; the answer ends with it, which Django leaves open."""
        async with aclosing(self._content):
            async for piece in cast("AsyncIterator[bytes]", self.streaming_content):
                yield piece

    async def _frames(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._answer.frames(self._heartbeat)) as frames:
            async for frame in frames:
                yield frame

    def _end(self) -> None:
        """Tell how the answer ended, in the thread of the request."""
        tell = self._on_end
        self._answer.end(async_to_sync(tell) if tell is not None and iscoroutinefunction(tell) else tell)

    async def _end_async(self) -> None:
        tell = self._on_end
        run = tell if tell is None or iscoroutinefunction(tell) else sync_to_async(tell)
        await self._answer.end_async(cast("Callable[[Reply], Awaitable[object]] | None", run))
