"""At most so many answers at once, the rest in a fair queue: first come, first served.

LM Studio queues what it cannot answer at once (a loaded instance answers `parallel` requests, four by default), and while it
does, nothing comes over the wire and the clients' time limits run. Waiting here instead runs no limit but the caller's.

How many that are is asked for once, when for the first time two answers are wanted at once: until then one may run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from lmdeck._pipeline import Call, Handler, Plan, Wait
from lmdeck._pipeline.exchange import Answer
from lmdeck._transport import Response
from lmdeck.events import RequestQueued

__all__ = ["DEFAULT_LIMIT", "Gate", "Limit", "Turn"]

DEFAULT_LIMIT = 4


class Turn:
    """A place in the queue: `wake` is called once, from whichever thread made room."""

    __slots__ = ("is_admitted", "owner", "wake")

    def __init__(self, wake: Callable[[], object], owner: object) -> None:
        self.wake = wake
        self.owner = owner
        self.is_admitted = False


class Gate:
    """Keep what is running and the queue; shared by threads, so every step is made under a lock.

    `who` names the thread or task that asks: one that itself holds all that is running, by streams that it has not left, is
    let in whatever the limit, for it would wait for itself. A limit of None is not known yet: then one may run.
    """

    def __init__(
        self,
        limit: int | None,
        make_lock: Callable[[], AbstractContextManager[Any]],
        who: Callable[[], object] = object,
    ) -> None:
        self._limit = limit
        self._make_lock = make_lock
        self._lock = make_lock()
        self._who = who
        self._running: set[Turn] = set()
        self._queue: deque[Turn] = deque()
        self._is_asked_for = False

    def after_fork(self) -> None:
        """Begin empty in a forked process: what runs and waits does so in the parent, whose threads may hold the lock."""
        self._lock = self._make_lock()
        self._running = set()
        self._queue = deque()
        self._is_asked_for = False

    @property
    def limit(self) -> int:
        """How many may run at once."""
        return 1 if self._limit is None else self._limit

    @property
    def waiting(self) -> int:
        """How many are queued."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many answers are being written."""
        return len(self._running)

    def begin_to_ask(self) -> bool:
        """Tell whether the limit is not known and nobody asks for it; who is told so has to ask, and to `resize`."""
        with self._lock:
            is_open = self._limit is None and not self._is_asked_for
            self._is_asked_for = self._is_asked_for or is_open
        return is_open

    def resize(self, limit: int) -> None:
        """Let more or fewer run from now on."""
        with self._lock:
            self._limit = limit
            admitted = self._admit()
        _wake(admitted)

    def enter(self) -> Turn | None:
        """Take a place at once, or None where there is a queue or no room."""
        turn = Turn(_nobody, self._who())
        with self._lock:
            is_free = not self._queue and len(self._running) < self.limit
            if not is_free and not self._would_wait_for_itself(turn):
                return None
            self._let_in(turn)
        return turn

    def join(self, wake: Callable[[], object]) -> Turn:
        """Take a place at the queue's end; `is_admitted` is True at once where there is room."""
        turn = Turn(wake, self._who())
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
                self._running.discard(turn)
            elif turn in self._queue:
                self._queue.remove(turn)
            admitted = self._admit()
        _wake(admitted)

    def _admit(self) -> list[Turn]:
        admitted = []
        while self._queue and len(self._running) < self.limit:
            turn = self._queue.popleft()
            self._let_in(turn)
            admitted.append(turn)
        return admitted

    def _let_in(self, turn: Turn) -> None:
        turn.is_admitted = True
        self._running.add(turn)

    def _would_wait_for_itself(self, turn: Turn) -> bool:
        return bool(self._running) and all(other.owner == turn.owner for other in self._running)


def _nobody() -> None:
    """Wake nobody: who was admitted at once does not wait."""


def _wake(turns: list[Turn]) -> None:
    for turn in turns:
        turn.wake()


class Limit:
    """Wait for a turn, run the next handler, and give the turn on when the answer's connection is let go."""

    def __init__(
        self,
        inner: Handler,
        gate: Gate,
        clock: Callable[[], float],
        notify: Callable[[RequestQueued], object],
        ask_limit: Callable[[], Plan[int | None]] | None = None,
    ) -> None:
        self._inner = inner
        self._gate = gate
        self._clock = clock
        self._notify = notify
        self._ask_limit = ask_limit

    def __call__(self, call: Call) -> Plan[Answer]:
        """Plan the call, in its turn.

        Raises:
            LMStudioError: What the next handler raises.
        """
        waited = 0.0
        turn = self._gate.enter()
        if turn is None:
            asked = self._clock()
            yield from self._learn_limit()
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

    def _learn_limit(self) -> Plan[None]:
        """Ask how many may run, if nobody has; the others wait meanwhile."""
        if self._ask_limit is None or not self._gate.begin_to_ask():
            return
        limit = None
        try:
            limit = yield from self._ask_limit()
        finally:
            self._gate.resize(limit or DEFAULT_LIMIT)


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
