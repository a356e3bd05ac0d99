"""A worker: leases requests, sends them to its hosts and records answers until none is left.

A slot of a host is free again only when its answer is committed. So when a worker is killed, at most as many requests
as its hosts had slots are sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from lmdeck.batch.answer_schema import SchemaCheck
from lmdeck.batch.batch_hosts import BatchHost, HostState
from lmdeck.batch.failure_policy import MAX_ATTEMPTS, Verdict, delay_after, row_error, verdict_on
from lmdeck.batch.ledger import Lease, LeaseOutcome, Ledger
from lmdeck.batch.ledger_thread import LedgerThread
from lmdeck.batch.progress import BatchProgress, Speed, running_progress
from lmdeck.errors import APIError, LMStudioError, TransportError

HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.25  # between two checks for requests that others have released, or that wait for another attempt
FIRST_PROBE, MAX_PROBE = 0.25, 10.0
FIRST_DELAY = 1.0
PATIENCE = 300.0
REFRESH_SECONDS = 30.0


class WorkerLimits(Struct, frozen=True, kw_only=True):
    """The limits of a worker; times are seconds.

    `max_concurrency` is per host; None is each host's own parallel limit. `attempts` is how often a request is sent if it
    fails temporarily, `first_delay` the wait before the second attempt. `patience` is how long all
    hosts may be down; unless it `waits_at_start`, one must answer at once.
    """

    max_concurrency: int | None = None
    attempts: int = MAX_ATTEMPTS
    first_delay: float = FIRST_DELAY
    patience: float = PATIENCE
    waits_at_start: bool = False


class Worker:
    """The work on one batch in this process; `store` is the ledger while it runs."""

    store: LedgerThread

    def __init__(
        self,
        ledger: Ledger,
        hosts: Sequence[BatchHost],
        limits: WorkerLimits,
        *,
        schema: SchemaCheck | None = None,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> None:
        self.ledger = ledger
        self.limits = limits
        self.schema = schema
        self._on_progress = on_progress
        self._host_workers = [_HostWorker(self, host) for host in hosts]
        self._speed = Speed()
        self._encoded: bytes | None = None
        self.is_stopping = False
        self.error: Exception | None = None
        self._answering_since = time.monotonic()
        self._was_answered = limits.waits_at_start

    async def run(self) -> None:
        """Work until every request is answered or has failed, or `stop` is called.

        Raises:
            LMStudioError: The work cannot continue: no host answers, a token is refused, a budget is used up, the disk is full.
        """
        self.store = LedgerThread(self.ledger, self.ledger.register())
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(*(host_worker.run() for host_worker in self._host_workers))
            await self._report()
        except Exception as error:  # after which the ledger may not be writable
            self.error = self.error or error
        finally:
            self.stop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._leave()
        if self.error is not None:
            raise self.error

    def stop(self, error: Exception | None = None) -> None:
        """Lease no more requests, and end when the running ones are answered."""
        self.is_stopping = True
        self.error = self.error or error
        for host_worker in self._host_workers:
            host_worker.wake()

    async def _leave(self) -> None:
        try:
            await self.store.run(self.ledger.leave, self.store.worker)
        except LMStudioError as error:  # a full disk: the leases end when this process does
            self.error = self.error or error
        await self.store.aclose()

    async def _watch(self) -> None:
        """Report once a second; a failure of the ledger or of the callback stops the work."""
        try:
            while True:
                await self._report()
                await asyncio.sleep(HEARTBEAT_SECONDS)
        except Exception as error:
            self.stop(error)

    async def _report(self) -> None:
        """Send a heartbeat, and report the progress of all workers."""
        totals = await self.store.run(self.ledger.heartbeat, self.store.worker, self._encoded)
        if totals.ended_by is not None:
            self.stop()
        ended = totals.answered + totals.failed
        tokens = sum(host.completion_tokens for host in totals.hosts)
        speed = self._speed.note(time.monotonic(), ended, tokens)
        hosts = {each.host.name: (each.is_up, len(each.running)) for each in self._host_workers}
        progress = running_progress(totals, speed, hosts)
        self._encoded = msgspec.json.encode(progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    def models_elsewhere(self, asking: _HostWorker) -> set[str]:
        """Return the models that the other hosts work on."""
        return {each.model for each in self._host_workers if each is not asking and each.model is not None}

    def is_served(self, model: str) -> bool:
        """Whether a host lists a model; a host that went down counts during `patience`."""
        return any(
            each.state.models is None or model in each.state.models
            for each in self._host_workers
            if each.was_up_within(self.limits.patience)
        )

    def note_up(self) -> None:
        """Note that a host answers."""
        self._was_answered = True

    def stop_if_unreachable(self, error: LMStudioError) -> None:
        """Stop if no host answers: at once if none ever has, else after `patience` seconds."""
        now = time.monotonic()
        if any(each.is_up for each in self._host_workers):
            self._answering_since = now
        elif not self._was_answered:
            if all(each.was_tried for each in self._host_workers):
                self.stop(error)
        elif now - self._answering_since > self.limits.patience:
            self.stop(error)


class _HostWorker:
    """One host, with its running requests."""

    def __init__(self, worker: Worker, host: BatchHost) -> None:
        self.host = host
        self.running: set[asyncio.Task[None]] = set()
        self.model: str | None = None
        self.state = HostState()
        self.is_up = False
        self.was_tried = False
        self._worker = worker
        self._changed = asyncio.Event()
        self._looked_up_at = 0.0
        self._was_up_at: float | None = None
        self._share = 1.0  # of the host's limit that is used; it shrinks after the host was overloaded
        self._paused_until = 0.0

    def wake(self) -> None:
        """Check at once for work."""
        self._changed.set()

    @property
    def limit(self) -> int:
        """The number of requests that the host may run."""
        limit = self._worker.limits.max_concurrency
        if limit is None:
            limit = self.state.parallel.get(self.model or "", self.state.default_parallel)
        return max(1, int(limit * self._share))

    def was_up_within(self, seconds: float) -> bool:
        """Whether the host answered within the last `seconds`."""
        return self.is_up or (self._was_up_at is not None and time.monotonic() - self._was_up_at < seconds)

    async def run(self) -> None:
        """Work on this host until no request is left, or the worker stops."""
        try:
            while not self._worker.is_stopping:
                if not self.is_up:
                    await self._wait_until_up()
                elif not await self._work():
                    break
            if self.running:
                await asyncio.wait(self.running)
        except BaseException:
            for task in self.running:
                task.cancel()
            await asyncio.gather(*self.running, return_exceptions=True)
            raise

    async def _work(self) -> bool:
        """Fill the free slots and wait until one is free again; False if the batch is finished."""
        self._changed.clear()
        free = 0 if time.monotonic() < self._paused_until else self.limit - len(self.running)
        leased = await self._lease(free) if free > 0 else []
        for lease in leased:
            task = asyncio.create_task(self._fill_slot(lease))
            self.running.add(task)
            task.add_done_callback(self._ended)
        if not leased and not self.running:
            store = self._worker.store
            if await store.run(self._worker.ledger.is_finished):
                return False
        if len(self.running) >= self.limit:
            await self._changed.wait()
        else:
            await self._wait(POLL_SECONDS)
        return True

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._worker.stop(error if isinstance(error, Exception) else None)

    async def _lease(self, free: int) -> list[Lease]:
        """Lease requests of the current model; of another one only when none runs.

        So the host does not swap models back and forth.
        """
        store = self._worker.store
        if self.model is not None:
            leased = await store.lease(self.model, free)
            if leased or self.running:
                return leased
        self.model = self._choose_model(await store.run(self._worker.ledger.open_models))
        return [] if self.model is None else await store.lease(self.model, min(free, self.limit))

    def _choose_model(self, models: Sequence[str]) -> str | None:
        """Return the model to work on next, or None.

        It is one that this host has, preferably one that is loaded and that no other host works on.
        """
        taken, listed = self._worker.models_elsewhere(self), self.state.models

        def rank(model: str) -> tuple[bool, bool]:
            return model in taken, model not in self.state.parallel

        fitting = [
            model
            for model in models
            if not model or listed is None or model in listed or not self._worker.is_served(model)
        ]
        return min(fitting, key=rank, default=None)

    async def _fill_slot(self, first: Lease) -> None:
        """Send a request, then others of its model, as long as the host's limit allows."""
        lease: Lease | None = first
        while lease is not None:
            outcome = await self._answer(lease)
            if len(self.running) < self.limit:  # the limit has grown, or there was too little to lease
                self.wake()
            may_continue = self.is_up and not self._worker.is_stopping and self.model == lease.model
            is_free = len(self.running) <= self.limit and time.monotonic() >= self._paused_until
            lease = await self._worker.store.record(outcome, lease.model if may_continue and is_free else None)

    async def _answer(self, lease: Lease) -> LeaseOutcome:
        """Send a request and return its outcome."""
        started = time.monotonic()
        try:
            answer = await self.host.ask(lease)
            if self._worker.schema is not None:
                self._worker.schema.check(lease, answer.body)
        except Exception as error:  # each is an outcome of the row, or stops the work
            return await self._failed(lease, error)
        seconds = time.monotonic() - started
        self._share = min(1.0, self._share + self._share / (4 * self.limit))
        await self._refresh()
        return LeaseOutcome(
            id=lease.id,
            host=self.host.name,
            answer=answer.body,
            status=answer.status,
            request_id=answer.request_id,
            seconds=seconds,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
        )

    async def _failed(self, lease: Lease, error: Exception) -> LeaseOutcome:
        """Return the outcome of a failure, and update the state of the host."""
        limits = self._worker.limits
        attempts = lease.attempts + 1
        verdict = verdict_on(error, attempts, limits.attempts)
        if isinstance(error, TransportError) and self.is_up:
            await self._probe()
        if isinstance(error, APIError) and verdict is Verdict.WAIT:
            self._share = max(self._share / 2, 0.01)
            self._paused_until = time.monotonic() + (error.retry_after or limits.first_delay)
        if verdict is Verdict.STOP:
            self._worker.stop(error)
        if verdict is Verdict.GIVE_UP:
            return LeaseOutcome(
                id=lease.id,
                host=self.host.name,
                error=row_error(error),
                status=error.status if isinstance(error, APIError) else None,
                request_id=error.request_id if isinstance(error, LMStudioError) else None,
            )
        counts = verdict is Verdict.RETRY
        delay = delay_after(attempts if counts else 1, limits.first_delay)
        return LeaseOutcome(id=lease.id, host=self.host.name, counts=counts, delay=delay)

    async def _refresh(self) -> None:
        """Fetch the host's models again after one was loaded: then its parallel limit is known."""
        now = time.monotonic()
        is_known = self.model in self.state.parallel or self.state.models is None
        if is_known or now - self._looked_up_at < REFRESH_SECONDS:
            return
        await self._probe()

    async def _probe(self) -> LMStudioError | None:
        """Fetch the host's state; return the error if it does not answer."""
        self._looked_up_at = time.monotonic()
        try:
            self.state = await self.host.look_up()
        except LMStudioError as error:
            if not isinstance(error, TransportError):
                self._worker.stop(error)  # for example a refused token
            self.is_up = False
            return error
        self.is_up, self._was_up_at = True, time.monotonic()
        self._worker.note_up()
        return None

    async def _wait_until_up(self) -> None:
        """Probe the host until it answers, with growing pauses."""
        pause = FIRST_PROBE
        while not self._worker.is_stopping:
            error = await self._probe()
            self.was_tried = True
            if error is None:
                return
            self._worker.stop_if_unreachable(error)
            await self._wait(pause)
            pause = min(pause * 1.5, MAX_PROBE)
