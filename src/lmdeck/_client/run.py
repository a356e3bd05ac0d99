"""A run as its reader has it: events to iterate, and the reply at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from lmdeck.errors import IncompleteStreamError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply


class _Finished:
    """The reply of a run, once there is one."""

    _reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The reply of the run.

        Raises:
            IncompleteStreamError: The run was not read to its end.
        """
        if self._reply is None:
            raise IncompleteStreamError("The run was not read to its end.", hint="Iterate it first.")
        return self._reply


class ChatRun(_Finished):
    """A run of the sync client while it goes on: a context manager and an iterator of chunks and tool events."""

    def __init__(self, steps: Generator[AgentEvent, None, Reply]) -> None:
        self._steps = steps
        self._events = self._iterate()

    def _iterate(self) -> Iterator[AgentEvent]:
        self._reply = yield from self._steps

    def __iter__(self) -> Iterator[AgentEvent]:
        return self._events

    def __next__(self) -> AgentEvent:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run: the model's stream is closed, and results that are still to come are not waited for."""
        self._steps.close()


class AsyncChatRun(_Finished):
    """A run of the async client while it goes on: an async context manager and iterator of chunks and tool events."""

    def __init__(self, steps: AsyncGenerator[AgentEvent | Reply, None]) -> None:
        self._steps = steps
        self._events = self._iterate()

    async def _iterate(self) -> AsyncGenerator[AgentEvent, None]:
        async with aclosing(self._steps) as steps:
            async for step in steps:
                if isinstance(step, Reply):
                    self._reply = step
                else:
                    yield step

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self._events

    async def __anext__(self) -> AgentEvent:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Async version of `ChatRun.close`."""
        await self._events.aclose()
        await self._steps.aclose()
