"""The ledger for asyncio: its operations run in one thread, and those that wait at the same time in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from lmdeck.batch.ledger import Lease, Ledger, Outcome

P = ParamSpec("P")
T = TypeVar("T")


class LedgerThread:
    """The ledger of one worker."""

    def __init__(self, ledger: Ledger, worker: int) -> None:
        self._ledger = ledger
        self.worker = worker
        self._executor = ThreadPoolExecutor(1, "lmdeck-ledger")
        self._outcomes: list[tuple[Outcome, asyncio.Future[None]]] = []
        self._wishes: list[tuple[tuple[str, int], asyncio.Future[list[Lease]]]] = []
        self._exchanging: asyncio.Task[None] | None = None

    async def run(self, operation: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
        """Run an operation of the ledger in its thread, and return its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: operation(*args, **keywords))

    async def record(self, outcome: Outcome) -> None:
        """Return when an outcome is committed.

        Raises:
            FileWriteError: It could not be.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outcomes.append((outcome, future))
        self._begin()
        await future

    async def lease(self, model: str, count: int) -> list[Lease]:
        """Return up to `count` requests of a model for this worker.

        Raises:
            FileWriteError: The lease could not be recorded.
        """
        future: asyncio.Future[list[Lease]] = asyncio.get_running_loop().create_future()
        self._wishes.append(((model, count), future))
        self._begin()
        return await future

    async def aclose(self) -> None:
        """Commit what waits, and end the thread."""
        if self._exchanging is not None:
            await self._exchanging
        self._executor.shutdown()

    def _begin(self) -> None:
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange())

    async def _exchange(self) -> None:
        """Run exchanges until nothing waits."""
        while self._outcomes or self._wishes:
            outcomes, self._outcomes = self._outcomes, []
            wishes, self._wishes = self._wishes, []
            try:
                leases = await self.run(
                    self._ledger.exchange, self.worker, [each for each, _ in outcomes], [each for each, _ in wishes]
                )
            except Exception as error:  # every operation of the transaction has failed
                for recorded in (each for _, each in outcomes if not each.done()):  # others were cancelled
                    recorded.set_exception(error)
                for leased in (each for _, each in wishes if not each.done()):
                    leased.set_exception(error)
            else:
                for recorded in (each for _, each in outcomes if not each.done()):
                    recorded.set_result(None)
                for (_, leased), found in zip(wishes, leases, strict=True):
                    if not leased.done():
                        leased.set_result(found)
