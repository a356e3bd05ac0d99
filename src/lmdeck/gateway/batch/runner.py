"""The runner of batches: one of the gateway's processes validates, runs and finishes them.

The process that holds the folder's lock runs the batches. If it ends for any reason, another process takes over, or the
same one after a restart. Answered rows are in the batch's ledger.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from lmdeck.batch.alive import AliveLock
from lmdeck.batch.ledger import EndedBy, Ledger, StoredRow, Totals
from lmdeck.batch.output import ended_rows, output_line
from lmdeck.batch.worker import Worker, WorkerLimits
from lmdeck.errors import AuthenticationError, LMStudioError, RateLimitError
from lmdeck.gateway.batch.batch_store import BatchStore
from lmdeck.gateway.batch.host import BatchGateway, GatewayHost
from lmdeck.gateway.batch.input_validation import read_input
from lmdeck.gateway.batch.records import Batch, BatchError, BatchStatus, StoredFile

__all__ = ["BatchRunner"]

TICK_SECONDS = 1.0
TRIM_SECONDS = 3600.0
RETRY_SECONDS = 10.0  # after a failure that may pass, such as a full disk
MAX_PAUSE = 300.0
DAY = 86400.0
_log = logging.getLogger("lmdeck.gateway")


class BatchRunner:
    """The batches of a gateway."""

    def __init__(self, gateway: BatchGateway) -> None:
        self._gateway = gateway
        self.store = BatchStore(gateway.config.batches.folder)
        self._lock = AliveLock(self.store.runner_lock)
        self._is_leading = False
        self._running: dict[str, _BatchRun] = {}
        self._not_before: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trimmed_at = 0.0

    async def start(self) -> None:
        """Look for batches from now on."""
        self._task = asyncio.create_task(self._lead())

    async def aclose(self) -> None:
        """Wait until running rows have finished, within the gateway's shutdown time.

        The batches continue at the next start.
        """
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        tasks = [run.task for run in self._running.values()]
        for run in self._running.values():
            run.stop()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._gateway.config.server.shutdown_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._lock.release()
        self.store.close()

    def wake(self) -> None:
        """Look for new or cancelled batches now."""
        self._wake.set()

    async def _lead(self) -> None:
        """Run the open batches, once a second or when something has changed."""
        while True:
            self._wake.clear()
            try:
                if self.store.exists and self._is_leader():
                    await self._tick()
            except Exception:
                _log.exception("the open batches could not be read or advanced")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)

    def _is_leader(self) -> bool:
        self._is_leading = self._is_leading or self._lock.try_exclusive()
        return self._is_leading

    async def _tick(self) -> None:
        now = time.time()
        for batch in await asyncio.to_thread(self.store.open_batches):
            run = self._running.get(batch.id)
            if run is not None:
                await run.follow(batch)
            elif len(self._running) < self._gateway.config.batches.at_once and now >= self._not_before.get(batch.id, 0):
                self._begin(batch)
        if now - self._trimmed_at > TRIM_SECONDS:
            self._trimmed_at = now
            before = now - DAY * self._gateway.config.batches.keep_days
            await asyncio.to_thread(self.store.remove_expired, before)

    def _begin(self, batch: Batch) -> None:
        run = self._running[batch.id] = _BatchRun(self._gateway, self.store, batch)
        run.task = asyncio.create_task(self._work(run))

    async def _work(self, run: _BatchRun) -> None:
        """Run a batch as far as possible; a failure that may pass is retried later."""
        batch = run.batch
        try:
            await run.work()
        except LMStudioError as error:
            pause = RETRY_SECONDS
            if isinstance(error, RateLimitError):
                pause = min(error.retry_after or RETRY_SECONDS, MAX_PAUSE)
            _log.warning("batch %s waits for %.0f s: %s", batch.id, pause, error.message)
            self._not_before[batch.id] = time.time() + pause
        except Exception:
            _log.exception("batch %s failed", batch.id)
            self._not_before[batch.id] = time.time() + RETRY_SECONDS
        finally:
            del self._running[batch.id]
            self.wake()


class _BatchRun:
    """The work on one batch in this process."""

    task: asyncio.Task[None]

    def __init__(self, gateway: BatchGateway, store: BatchStore, batch: Batch) -> None:
        self.batch = batch
        self._gateway = gateway
        self._store = store
        self._worker: Worker | None = None
        self._ledger: Ledger | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """Send no further rows."""
        self._is_stopping = True
        if self._worker is not None:
            self._worker.stop()

    async def follow(self, batch: Batch) -> None:
        """Store the counts; end the batch if it was cancelled or its window is over."""
        if self._worker is None:
            return
        ended_by: EndedBy | None = "batch_cancelled" if batch.status == "cancelling" else None
        if ended_by is None and time.time() >= batch.expires_at:
            ended_by = "batch_expired"
        totals = await asyncio.to_thread(self._totals, ended_by)
        if ended_by is not None:
            self._worker.stop()
        await asyncio.to_thread(self._change, lambda known: _counted(known, totals))

    def _totals(self, ended_by: EndedBy | None) -> Totals:
        with _open_ledger(self._store.ledger_of(self.batch.id)) as ledger:
            if ended_by is not None:
                ledger.set(ended_by=ended_by)
            return ledger.totals()

    def _change(self, change: Callable[[Batch], Batch]) -> None:
        self.batch = self._store.change_batch(self.batch.id, change)

    def _enter(self, status: BatchStatus, **more: object) -> None:
        """Change the status and record the time."""

        def change(batch: Batch) -> Batch:
            is_cancelled = batch.status == "cancelling" and status == "in_progress"
            stamp = {} if is_cancelled else {"status": status, f"{status}_at": int(time.time())}
            return replace(batch, **stamp, **more)

        self._change(change)

    async def work(self) -> None:
        """Advance the batch through its states as far as possible.

        Raises:
            LMStudioError: It cannot go on now.
        """
        with _open_ledger(self._store.ledger_of(self.batch.id)) as ledger:
            if self.batch.status in {"validating", "cancelling"} and not ledger.get("is_read"):
                await asyncio.to_thread(self._validate, ledger)
            if self.batch.is_over:
                return
            if self.batch.status == "in_progress":
                await self._answer(ledger)
            totals = ledger.totals()
            if self.batch.status == "cancelling" and totals.ended_by is None:
                ledger.set(ended_by="batch_cancelled")
            if not (ledger.is_finished() or ledger.totals().ended_by):
                return  # the gateway shuts down
            await asyncio.to_thread(self._finish, ledger)

    def _validate(self, ledger: Ledger) -> None:
        limits = self._gateway.config.batches
        path = self._store.content_of(self.batch.input_file_id)
        errors = read_input(path, self.batch.endpoint, ledger, limits.rows)
        if errors:
            self._enter("failed", errors=errors)
            return
        ledger.set(is_read=1)
        self._enter("in_progress", total=ledger.totals().rows)

    async def _answer(self, ledger: Ledger) -> None:
        """Send the rows.

        Raises:
            LMStudioError: A budget is used, or the disk is full.
        """
        host = GatewayHost(self._gateway, self.batch.owner)
        limits = WorkerLimits(max_concurrency=self._gateway.config.batches.max_concurrency)
        self._worker = Worker(ledger, [host], limits)
        if self._is_stopping:
            self._worker.stop()
        try:
            await self._worker.run()
        except AuthenticationError as error:  # the key was revoked
            self._enter("failed", errors=[BatchError(code="invalid_api_key", message=error.message)])
        finally:
            self._worker = None

    def _finish(self, ledger: Ledger) -> None:
        """Write the output and error files, and end the batch."""
        if self.batch.is_over:
            return
        totals = ledger.totals()
        if totals.ended_by is None:
            self._enter("finalizing")
        counted = _counted(self.batch, totals)
        answered = self._write_file(ledger, "output", is_answered=True)
        failed = self._write_file(ledger, "error", is_answered=False)
        ending: dict[str | None, BatchStatus] = {"batch_cancelled": "cancelled", "batch_expired": "expired"}
        self._enter(
            ending.get(totals.ended_by, "completed"),
            output_file_id=answered,
            error_file_id=failed,
            completed=counted.completed,
            failed=counted.total - counted.completed,
            prompt_tokens=counted.prompt_tokens,
            completion_tokens=counted.completion_tokens,
        )

    def _write_file(self, ledger: Ledger, kind: str, *, is_answered: bool) -> str | None:
        """Write the rows with or without an answer to a file; return its id, None without rows."""
        path = self._store.temporary_path()
        rows: Iterator[StoredRow] = (row for row in ended_rows(ledger) if (row.answer is not None) == is_answered)
        try:
            with path.open("wb") as file:
                for row in rows:
                    file.write(output_line(self.batch.id, row) + b"\n")
                size = file.tell()
                file.flush()
                os.fsync(file.fileno())
            if not size:
                return None
            now = int(time.time())
            seconds = self.batch.output_seconds or round(DAY * self._gateway.config.batches.keep_days)
            record = StoredFile(
                id=f"file-{self.batch.id.removeprefix('batch_')}-{kind}",
                owner=self.batch.owner,
                filename=f"{self.batch.id}_{kind}.jsonl",
                purpose="batch_output",
                bytes=size,
                created_at=now,
                expires_at=now + seconds,
            )
            self._store.add_file(record, path)
            return record.id
        finally:
            path.unlink(missing_ok=True)


def _counted(batch: Batch, totals: Totals) -> Batch:
    return replace(
        batch,
        completed=totals.answered,
        failed=totals.failed,
        prompt_tokens=sum(host.prompt_tokens for host in totals.hosts),
        completion_tokens=sum(host.completion_tokens for host in totals.hosts),
    )


@contextmanager
def _open_ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()
