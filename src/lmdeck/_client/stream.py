"""A chat's answer while it is being written: an iterator of chunks, then the reply.

Leaving a stream early, by `break`, an exception, Ctrl-C or a cancelled task, closes the connection at once, and so ends the
generation on the server. This also applies without `with`: the iterator refers only to the `_StreamState`, not to the stream,
so the iterator of a loop that was left is freed, which closes the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar, cast

from lmdeck._chunks import Chunk
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.chat import final_reply
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._transport import AsyncResponse, AsyncTransport, SyncResponse, Transport
from lmdeck._transport.interruption import Interruption
from lmdeck.errors import IncompleteStreamError, TransportError
from lmdeck.messages import Reply

TransportT = TypeVar("TransportT")
Begin: TypeAlias = Callable[[], Plan[ResponseStream[ChatReader]]]


class _StreamState(Generic[TransportT]):
    """The state of reading one answer."""

    __slots__ = ("_begin", "_is_closed", "interruption", "response", "transport")

    def __init__(self, transport: TransportT, begin: Begin) -> None:
        self.transport = transport
        self.response: ResponseStream[ChatReader] | None = None
        self._begin: Begin | None = begin
        self._is_closed = False
        self.interruption = Interruption()

    def opened(self) -> ResponseStream[ChatReader] | None:
        """Return the open response, or None before the request was sent.

        Raises:
            IncompleteStreamError: The stream is closed.
        """
        self.check_open()
        return self.response

    def begin(self) -> Plan[ResponseStream[ChatReader]]:
        """Send the request, and return the open response.

        Raises:
            LMStudioError: The answer failed before its first chunk, or the stream is closed.
        """
        self.check_open()
        begin = cast("Begin", self._begin)
        self.response = response = yield from begin()
        self._begin = None  # an open stream does not need the request
        self.check_open()  # another thread or task may have closed it meanwhile
        return response

    def check_open(self) -> None:
        """Check that the stream was not closed.

        Raises:
            IncompleteStreamError: It was closed; `partial` is the reply so far.
        """
        if self._is_closed:
            self.close()
            raise IncompleteStreamError(
                "The stream is closed.", hint="Send the request again for a new stream.", partial=self.partial()
            )

    def partial(self) -> Reply:
        """Return the reply so far."""
        partial = self.response.reader.partial() if self.response is not None else None
        return partial or Reply()

    def close(self) -> None:
        """Close the connection; chunks that were read remain available."""
        self._is_closed = True
        if self.response is None:
            self.interruption.set()
        else:
            self.response.close()


class _StreamBase(Generic[TransportT]):
    """The base class of both streams: the state of the reading, and the resulting reply."""

    def __init__(self, transport: TransportT, begin: Begin) -> None:
        self._state = _StreamState(transport, begin)
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream was read to its end.

        Raises:
            IncompleteStreamError: The stream was not read to its end; `partial` is the reply so far.
        """
        if self._reply is None:
            response = self._state.response
            if response is None or not response.is_finished:
                raise IncompleteStreamError(
                    "The stream was not read to its end.",
                    hint="Iterate it first; `stream.partial` is the reply so far.",
                    partial=self.partial,
                )
            self._reply = final_reply(response)
        return self._reply

    @property
    def partial(self) -> Reply:
        """The reply so far, with complete calls only."""
        return self._state.partial() if self._reply is None else self._reply


class ChatStream(_StreamBase[Transport]):
    """The stream of the sync client: a context manager and an iterator of `Chunk`."""

    def __init__(self, transport: Transport, begin: Begin) -> None:
        super().__init__(transport, begin)
        self._chunks = _read(self._state)

    def __enter__(self) -> Self:
        _begin(self._state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def text(self) -> Iterator[str]:
        """Return only the new content, piece by piece."""
        return (chunk.content for chunk in self._chunks if chunk.content)

    def until_done(self) -> Reply:
        """Read the rest and return the reply.

        Raises:
            LMStudioError: The answer is not complete.
        """
        for _ in self._chunks:
            continue
        return self.reply

    def close(self) -> None:
        """Close the connection, so that the server stops generating."""
        self._state.close()


class AsyncChatStream(_StreamBase[AsyncTransport]):
    """The stream of the async client: an async context manager and an async iterator of `Chunk`."""

    def __init__(self, transport: AsyncTransport, begin: Begin) -> None:
        super().__init__(transport, begin)
        self._chunks = _read_async(self._state)

    async def __aenter__(self) -> Self:
        await _begin_async(self._state)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def text(self) -> AsyncIterator[str]:
        """Async version of `ChatStream.text`."""
        async for chunk in self._chunks:
            if chunk.content:
                yield chunk.content

    async def until_done(self) -> Reply:
        """Async version of `ChatStream.until_done`."""
        async for _ in self._chunks:
            continue
        return self.reply

    async def aclose(self) -> None:
        """Async version of `ChatStream.close`."""
        self._state.close()


def _begin(state: _StreamState[Transport]) -> ResponseStream[ChatReader]:
    """Send the request on first use, wait for the first chunk, and return the open response."""
    return state.opened() or drive(state.begin(), state.transport, state.interruption)


def _read(state: _StreamState[Transport]) -> Iterator[Chunk]:
    response = _begin(state)
    try:
        yield from response.take_first_chunks()
        live = cast("SyncResponse", response.response)
        while response.has_more():
            try:
                data = live.read()
            except TransportError as error:
                state.check_open()
                yield from response.feed_failure(error)
            else:
                chunks = response.feed(data)
                del data  # free the bytes while the chunks are read
                yield from chunks
        if response.is_live:
            live.drain()
    finally:
        state.close()


async def _begin_async(state: _StreamState[AsyncTransport]) -> ResponseStream[ChatReader]:
    """Send the request on first use, wait for the first chunk, and return the open response.

    If another task or thread closes the stream, the wait ends, but this task is not cancelled.
    """
    if (response := state.opened()) is not None:
        return response
    import asyncio  # imported late: the sync client does not need it

    loop, task, is_waiting = asyncio.get_running_loop(), asyncio.current_task(), True

    def stop() -> None:
        if is_waiting and task is not None:
            task.cancel()

    state.interruption.watch(lambda: loop.call_soon_threadsafe(stop))
    try:
        return await drive_async(state.begin(), state.transport)
    except asyncio.CancelledError:
        if not state.interruption.is_set or task is None or task.uncancel() > 0:
            raise
        raise IncompleteStreamError("The stream is closed.", hint="Send the request again for a new stream.") from None
    finally:
        is_waiting = False
        state.interruption.watch(None)


async def _read_async(state: _StreamState[AsyncTransport]) -> AsyncIterator[Chunk]:
    response = await _begin_async(state)
    try:
        for chunk in response.take_first_chunks():
            yield chunk
        live = cast("AsyncResponse", response.response)
        while response.has_more():
            try:
                data = await live.read()
            except TransportError as error:
                state.check_open()
                chunks = response.feed_failure(error)
            else:
                chunks = response.feed(data)
                del data  # free the bytes while the chunks are read
            for chunk in chunks:
                yield chunk
        if response.is_live:
            await live.drain()
    finally:
        state.close()
