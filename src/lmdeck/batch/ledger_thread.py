"""The ledger for asyncio: one thread, in which simultaneous operations share a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from lmdeck.batch.ledger import Lease, LeaseOutcome, Ledger

P = ParamSpec("P")
T = TypeVar("T")


class LedgerThread:
    """The ledger of one worker."""

    def __init__(self, ledger: Ledger, worker: int) -> None:
        self._ledger = ledger
        self.worker = worker
        self._executor = ThreadPoolExecutor(1, "lmdeck-ledger")
        self._waiting: list[tuple[LeaseOutcome | None, tuple[str, int] | None, asyncio.Future[list[Lease]]]] = []
        self._exchanging: asyncio.Task[None] | None = None

    async def run(self, operation: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
        """Run an operation of the ledger in its thread, and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: operation(*args, **keywords))

    async def record(self, outcome: LeaseOutcome, then: str | None = None) -> Lease | None:
        """Commit an outcome; with `then`, also lease another request of that model and return it.

        Raises:
            FileWriteError: It could not be committed.
        """
        leased = await self._exchanged(outcome, None if then is None else (then, 1))
        return leased[0] if leased else None

    async def lease(self, model: str, count: int) -> list[Lease]:
        """Return up to `count` requests of a model for this worker.

        Raises:
            FileWriteError: The lease could not be recorded.
        """
        return await self._exchanged(None, (model, count))

    async def aclose(self) -> None:
        """Commit what is queued, and end the thread."""
        if self._exchanging is not None:
            await self._exchanging
        self._executor.shutdown()

    async def _exchanged(self, outcome: LeaseOutcome | None, demand: tuple[str, int] | None) -> list[Lease]:
        future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, demand, future))
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange())
        return await future

    async def _exchange(self) -> None:
        """Run exchanges until nothing waits."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            outcomes = [outcome for outcome, _, _ in waiting if outcome is not None]
            demands = [demand for _, demand, _ in waiting if demand is not None]
            try:
                leases = iter(await self.run(self._ledger.exchange, self.worker, outcomes, demands))
            except Exception as error:  # every operation of the transaction has failed
                for future in (each for _, _, each in waiting if not each.done()):  # others were cancelled
                    future.set_exception(error)
            else:
                for _, demand, future in waiting:
                    leased = [] if demand is None else next(leases)
                    if not future.done():
                        future.set_result(leased)
