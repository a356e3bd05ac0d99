"""A chat's answer while it is being written: an iterator of chunks, and at its end the reply.

Leaving a stream early, by `break`, an exception, Ctrl-C or a cancelled task, closes the connection at once, and so ends the
generation on the server. That holds without `with`, too: the iterator keeps only the `_Reading` alive, never the stream, so
nothing keeps the iterator of a loop that was left, and its end closes the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar, cast

from lmdeck._client.plans.chat import begin_chat, final_reply
from lmdeck._client.session import Session
from lmdeck._pipeline import Plan
from lmdeck._pipeline.exchange import Answer
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._requests.chat import ChatSpec
from lmdeck._transport import AsyncResponse, AsyncTransport, SyncResponse, Transport
from lmdeck._transport.interruption import Interruption
from lmdeck.errors import IncompleteStreamError, TransportError
from lmdeck.events import Chunk
from lmdeck.messages import Reply

__all__ = ["AsyncChatStream", "ChatStream"]

Route = TypeVar("Route")
Begin: TypeAlias = "Callable[[], Plan[Answer]]"


class _Reading(Generic[Route]):
    """How far the reading of one answer has come."""

    def __init__(self, session: Session, route: Route, spec: ChatSpec, begin: Begin | None = None) -> None:
        self.route = route
        self.answer: Answer | None = None
        self._begin: Begin = begin or partial(begin_chat, session, spec, stream=True)
        self._is_closed = False
        self.interruption = Interruption()

    def begin(self) -> Plan[Answer]:
        """Ask, the first time; give the answer that has begun.

        Raises:
            LMStudioError: Whatever kept the answer from beginning, or the stream is closed.
        """
        self.check_open()
        if self.answer is None:
            self.answer = yield from self._begin()
            self.check_open()  # another thread or task may have closed it meanwhile
        return self.answer

    def check_open(self) -> None:
        """Refuse to read on where the stream was closed.

        Raises:
            IncompleteStreamError: It was; `partial` is the reply so far.
        """
        if self._is_closed:
            self.close()
            raise IncompleteStreamError(
                "The stream is closed.", hint="Ask again for a new one.", partial=self.partial()
            )

    def partial(self) -> Reply:
        """Give the reply so far."""
        partial = self.answer.reader.partial() if self.answer is not None else None
        return partial or Reply()

    def close(self) -> None:
        """Close the connection; what was read stays."""
        self._is_closed = True
        if self.answer is None:
            self.interruption.set()
        else:
            self.answer.response.close()


class _Stream(Generic[Route]):
    """What both streams share: the reading, and the reply that it becomes."""

    def __init__(self, session: Session, route: Route, spec: ChatSpec, begin: Begin | None = None) -> None:
        self._reading = _Reading(session, route, spec, begin)
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream was read to its end.

        Raises:
            IncompleteStreamError: It was not; `partial` is the reply so far.
        """
        answer = self._reading.answer
        if self._reply is None:
            if answer is None or not answer.is_finished:
                raise IncompleteStreamError(
                    "The stream was not read to its end.",
                    hint="Iterate it first; `stream.partial` is the reply so far.",
                    partial=self.partial,
                )
            self._reply = final_reply(answer)
        return self._reply

    @property
    def partial(self) -> Reply:
        """The reply so far, whole calls only."""
        return self._reading.partial() if self._reply is None else self._reply


class ChatStream(_Stream[Transport]):
    """The stream of the sync client: a context manager and an iterator of `Chunk`."""

    def __init__(
        self, session: Session, route: Transport, spec: ChatSpec, begin: Callable[[], Plan[Answer]] | None = None
    ) -> None:
        super().__init__(session, route, spec, begin)
        self._chunks = _read(self._reading)

    def __enter__(self) -> Self:
        drive(self._reading.begin(), self._reading.route, self._reading.interruption)
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
        """Give only the new content, piece by piece."""
        return (chunk.content for chunk in self._chunks if chunk.content)

    def until_done(self) -> Reply:
        """Read the rest and give the reply.

        Raises:
            LMStudioError: There is no whole answer.
        """
        for _ in self._chunks:
            continue
        return self.reply

    def close(self) -> None:
        """Stop: close the connection, so that the server stops generating."""
        self._reading.close()


class AsyncChatStream(_Stream[AsyncTransport]):
    """The stream of the async client: an async context manager and an async iterator of `Chunk`."""

    def __init__(
        self, session: Session, route: AsyncTransport, spec: ChatSpec, begin: Callable[[], Plan[Answer]] | None = None
    ) -> None:
        super().__init__(session, route, spec, begin)
        self._chunks = _read_async(self._reading)

    async def __aenter__(self) -> Self:
        await drive_async(self._reading.begin(), self._reading.route)
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
        """Give only the new content, piece by piece."""
        async for chunk in self._chunks:
            if chunk.content:
                yield chunk.content

    async def until_done(self) -> Reply:
        """Read the rest and give the reply.

        Raises:
            LMStudioError: There is no whole answer.
        """
        async for _ in self._chunks:
            continue
        return self.reply

    async def aclose(self) -> None:
        """Stop: close the connection, so that the server stops generating."""
        self._reading.close()


def _read(reading: _Reading[Transport]) -> Iterator[Chunk]:
    answer = drive(reading.begin(), reading.route, reading.interruption)
    response = cast("SyncResponse", answer.response)
    try:
        yield from answer.first
        while answer.has_more():
            try:
                data = response.read()
            except TransportError as error:
                reading.check_open()
                yield from answer.take_failure(error)
            else:
                yield from answer.take(data)
        response.drain()
    finally:
        reading.close()


async def _read_async(reading: _Reading[AsyncTransport]) -> AsyncIterator[Chunk]:
    answer = await drive_async(reading.begin(), reading.route)
    response = cast("AsyncResponse", answer.response)
    try:
        for chunk in answer.first:
            yield chunk
        while answer.has_more():
            try:
                data = await response.read()
            except TransportError as error:
                reading.check_open()
                chunks = answer.take_failure(error)
            else:
                chunks = answer.take(data)
            for chunk in chunks:
                yield chunk
        await response.drain()
    finally:
        reading.close()
