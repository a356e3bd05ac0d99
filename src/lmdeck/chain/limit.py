"""At most so many answers at once, the rest in a fair queue: first come, first served.

LM Studio queues what it cannot answer at once (a loaded instance answers `parallel` requests, four by default), and while it
does, nothing comes over the wire and the clients' time limits run. Waiting here instead runs no limit but the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lmdeck.chain import Call, Handler, Plan, Wait
from lmdeck.chain.exchange import Answer
from lmdeck.events import RequestQueued
from lmdeck.transport import Response

__all__ = ["DEFAULT_LIMIT", "Gate", "Limit", "Turn"]

DEFAULT_LIMIT = 4


class Turn:
    """A place in the queue: `wake` is called once, from whichever thread made room."""

    __slots__ = ("is_admitted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.is_admitted = False


class Gate:
    """Count what is running and keep the queue; shared by threads, so every step is made under `lock`."""

    def __init__(self, limit: int, lock: AbstractContextManager[Any]) -> None:
        self._limit = limit
        self._lock = lock
        self._running = 0
        self._queue: deque[Turn] = deque()

    @property
    def limit(self) -> int:
        """How many may run at once."""
        return self._limit

    @property
    def waiting(self) -> int:
        """How many are queued."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many answers are being written."""
        return self._running

    def resize(self, limit: int) -> None:
        """Let more or fewer run from now on."""
        with self._lock:
            self._limit = limit
            admitted = self._admit()
        _wake(admitted)

    def enter(self) -> Turn | None:
        """Take a place at once, or None where there is a queue or no room."""
        with self._lock:
            if self._queue or self._running >= self._limit:
                return None
            self._running += 1
        turn = Turn(_nobody)
        turn.is_admitted = True
        return turn

    def join(self, wake: Callable[[], object]) -> Turn:
        """Take a place at the queue's end; `is_admitted` is True at once where there is room."""
        turn = Turn(wake)
        with self._lock:
            self._queue.append(turn)
            admitted = self._admit()
        _wake([other for other in admitted if other is not turn])
        return turn

    def leave(self, turn: Turn) -> None:
        """Give the place up, whether it was still in the queue or running already."""
        with self._lock:
            if turn.is_admitted:
                turn.is_admitted = False
                self._running -= 1
            elif turn in self._queue:
                self._queue.remove(turn)
            admitted = self._admit()
        _wake(admitted)

    def _admit(self) -> list[Turn]:
        admitted = []
        while self._queue and self._running < self._limit:
            turn = self._queue.popleft()
            turn.is_admitted = True
            self._running += 1
            admitted.append(turn)
        return admitted


def _nobody() -> None:
    """Wake nobody: who was admitted at once does not wait."""


def _wake(turns: list[Turn]) -> None:
    for turn in turns:
        turn.wake()


class Limit:
    """Wait for a turn, run the next handler, and give the turn on when the answer's connection is let go."""

    def __init__(
        self, inner: Handler, gate: Gate, clock: Callable[[], float], notify: Callable[[RequestQueued], object]
    ) -> None:
        self._inner = inner
        self._gate = gate
        self._clock = clock
        self._notify = notify

    def __call__(self, call: Call) -> Plan[Answer]:
        """Plan the call, in its turn.

        Raises:
            LMStudioError: What the next handler raises.
        """
        waited = 0.0
        turn = self._gate.enter()
        if turn is None:
            asked = self._clock()
            turn = yield Wait(self._gate)
            waited = self._clock() - asked
        given: Turn = turn
        try:
            if waited:
                self._notify(RequestQueued(call.request_id, waited, self._gate.limit))
            answer = yield from self._inner(call)
        except BaseException:
            self._gate.leave(given)
            raise
        answer.queue_time = waited
        if answer.is_finished:
            self._gate.leave(given)
        else:
            answer.response = _Released(answer.response, lambda: self._gate.leave(given))
        return answer


class _Released:
    """A response that gives its turn on when it is closed or drained, once."""

    def __init__(self, response: Response, release: Callable[[], None]) -> None:
        self._response = response
        self._release: Callable[[], None] | None = release

    def close(self) -> None:
        """Close the connection and give the turn on."""
        try:
            self._response.close()
        finally:
            release, self._release = self._release, None
            if release is not None:
                release()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # the response's own read, drain, status and headers
        return getattr(self._response, name)
