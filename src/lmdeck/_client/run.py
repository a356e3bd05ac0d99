"""A run of the agent loop: events to iterate over, and the reply at the end."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Self

from lmdeck._client.paused_run import PausedRun
from lmdeck._transport.interruption import Interruption
from lmdeck._transport.traceback_secrets import clear_own_locals
from lmdeck.errors import IncompleteStreamError, LMStudioError
from lmdeck.events import AgentEvent
from lmdeck.messages import Reply


def run_closed(partial: Reply | None = None) -> IncompleteStreamError:
    """Return the error for reading a closed run.

    `partial` is the answer of its last round so far.
    """
    return IncompleteStreamError("The run is closed.", hint="Start a new run.", partial=partial)


class _RunBase:
    """The base class of both runs: the state of the run, and its result."""

    def __init__(self) -> None:
        self._interruption = Interruption()
        self._is_over = False
        self._outcome: Reply | PausedRun | None = None

    @property
    def outcome(self) -> Reply | PausedRun:
        """The return value of `run`: the reply of the run, or the paused run.

        Raises:
            IncompleteStreamError: The run was not read to its end.
        """
        if self._outcome is None:
            raise IncompleteStreamError("The run was not read to its end.", hint="Iterate it first.")
        return self._outcome

    @property
    def reply(self) -> Reply:
        """The reply of the run; if it was paused, the reply so far, whose calls were not run.

        Raises:
            IncompleteStreamError: The run was not read to its end.
        """
        outcome = self.outcome
        return outcome if isinstance(outcome, Reply) else outcome.partial

    @property
    def paused(self) -> PausedRun | None:
        """The paused run if calls wait for a decision; else None."""
        return self._outcome if isinstance(self._outcome, PausedRun) else None

    def _check_open(self) -> None:
        if self._interruption.is_set and not self._is_over:
            raise run_closed()


class ChatRun(_RunBase):
    """A run of the sync client: a context manager and an iterator of chunks and tool events."""

    def __init__(self, begin: Callable[[Interruption], Generator[AgentEvent, None, Reply | PausedRun]]) -> None:
        super().__init__()
        self._steps = begin(self._interruption)
        self._lock = threading.Lock()  # held while waiting for the next event

    def __iter__(self) -> Iterator[AgentEvent]:
        return self

    def __next__(self) -> AgentEvent:
        with self._lock:
            try:
                self._check_open()
                event = next(self._steps)
                self._check_open()
            except StopIteration as done:
                self._outcome = self._outcome or done.value
                self._is_over = True
                raise StopIteration from None
            except BaseException as error:
                self._steps.close()
                clear_own_locals(error)
                if self._interruption.is_set and isinstance(error, IncompleteStreamError):
                    raise run_closed(error.partial) from None
                self._is_over = True
                raise
            return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run: close the model's stream, and do not wait for results of tools.

        If another thread calls this, the thread that reads the run gets an `IncompleteStreamError`. A sync `approve` or handler
        that is running is not stopped.
        """
        self._interruption.set()
        if self._lock.acquire(blocking=False):  # otherwise, a thread is reading, and ends the run itself
            try:
                self._steps.close()
            finally:
                self._lock.release()


class AsyncChatRun(_RunBase):
    """Async version of `ChatRun`: an async context manager and iterator."""

    def __init__(self, steps: AsyncGenerator[AgentEvent | Reply | PausedRun, None]) -> None:
        super().__init__()
        self._steps = steps
        self._is_reading = False

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self

    async def __anext__(self) -> AgentEvent:
        self._check_open()
        step = await self._step()
        if isinstance(step, Reply | PausedRun):
            self._outcome, self._is_over = step, True
            await self._steps.aclose()
            raise StopAsyncIteration
        return step

    async def _step(self) -> AgentEvent | Reply | PausedRun:
        """Wait for the next step; if another task closes the run, the wait ends, not this task."""
        import asyncio  # imported late: the sync client does not need it

        task = asyncio.current_task()
        self._interruption.watch(None if task is None else task.cancel)
        self._is_reading = True
        try:
            step = await anext(self._steps)
            if self._interruption.is_set:  # the cancellation is still pending
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not self._interruption.is_set or task is None or task.uncancel() > 0:
                raise
            await self._steps.aclose()
            raise run_closed() from None
        except StopAsyncIteration:
            self._is_over = True
            raise
        except LMStudioError as error:
            clear_own_locals(error)
            raise
        finally:
            self._is_reading = False
            self._interruption.watch(None)
        return step

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Async version of `ChatRun.close`; another task may call it."""
        self._interruption.set()
        if not self._is_reading:  # otherwise, a task is reading, and ends the run itself
            await self._steps.aclose()
