"""`lm.batch(…)`: a batch, from its input over its requests to its output."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from lmdeck.batch.answer_schema import SchemaCheck
from lmdeck.batch.batch_hosts import BatchHost
from lmdeck.batch.input_requests import BatchOptions, InvalidRowError, custom_id_of, request_of
from lmdeck.batch.ledger import InputRow, Ledger, RowError, StoredRow
from lmdeck.batch.output import ended_rows, write_output, writer_for
from lmdeck.batch.progress import BatchProgress, BatchSummary, RowFigures, running_progress
from lmdeck.batch.readers import Record, digest_of, read_records
from lmdeck.batch.stored_answers import BatchReply, read_reply
from lmdeck.batch.worker import Worker, WorkerLimits
from lmdeck.errors import ConfigurationError

READ_ROWS = 1000  # in one transaction
SHOWN_ROWS = 5
PathLikeText = str | PathLike[str]
OnProgress = Callable[[BatchProgress], object]
T = TypeVar("T")


class BatchRow(Struct, frozen=True, kw_only=True):
    """The result of a row: `number` counts from 0, `line` is its place in the input.

    `reply` is a `Reply`, `Completion` or `Embeddings`, None if there is an `error`. `response` is the answer as it was stored.
    """

    number: int
    line: int
    custom_id: str
    reply: BatchReply | None = None
    error: RowError | None = None
    response: bytes | None = None


class _BatchJobBase:
    """The parts of a batch that do not depend on how it is run."""

    def __init__(
        self,
        source: PathLikeText,
        out: PathLikeText,
        make_hosts: Callable[[], Sequence[BatchHost]],
        *,
        ledger: PathLikeText | None = None,
        options: BatchOptions | None = None,
        limits: WorkerLimits | None = None,
    ) -> None:
        """Describe a batch; nothing is opened yet.

        Raises:
            ConfigurationError: An option is wrong, or the output's name has an unknown ending.
        """
        self.source = Path(source)
        self.out = Path(out)
        self.ledger = ledger_of(self.out) if ledger is None else Path(ledger)
        self._options = (BatchOptions() if options is None else options).checked()
        self._limits = WorkerLimits() if limits is None else limits
        self._make_hosts = make_hosts
        self._schema = None if self._options.schema is None else SchemaCheck(self._options.schema)
        writer_for(self.out)

    def results(self) -> Iterator[BatchRow]:
        """Yield the result of each row in the order of the input; unanswered rows have an error.

        Raises:
            ConfigurationError: The batch has no ledger yet.
        """
        with open_ledger(self.ledger) as ledger:
            yield from map(_result, ended_rows(ledger))

    def progress(self) -> BatchProgress:
        """Return the progress of the batch, over all processes that work on it.

        Raises:
            ConfigurationError: The batch has no ledger yet.
        """
        return progress_of(self.ledger)

    def cancel(self) -> None:
        """End the batch: running requests finish, and rows not yet sent become error rows.

        `run` resumes it.

        Raises:
            ConfigurationError: The batch has no ledger yet.
        """
        cancel(self.ledger)

    async def _run(self, on_progress: OnProgress | None, *, retry_failed: bool, catches_signals: bool) -> BatchSummary:
        started = time.monotonic()
        ledger = await asyncio.to_thread(Ledger, self.ledger)
        hosts: Sequence[BatchHost] = ()
        interrupted: list[int] = []
        try:
            await asyncio.to_thread(self._read, ledger, on_progress, retry_failed=retry_failed)
            hosts = self._make_hosts()
            worker = Worker(ledger, hosts, self._limits, schema=self._schema, on_progress=on_progress)
            with _stop_on_signals(worker, interrupted if catches_signals else None):
                await worker.run()
            if interrupted:
                raise KeyboardInterrupt
            return await asyncio.to_thread(self._finish, ledger, on_progress, started)
        finally:
            for host in hosts:
                await host.aclose()
            ledger.close()

    def _read(self, ledger: Ledger, on_progress: OnProgress | None, *, retry_failed: bool) -> None:
        """Read the input into the ledger, from where an earlier run stopped.

        Raises:
            ConfigurationError: The ledger belongs to another input, or to other options.
        """
        identity = msgspec.json.encode(self._options, order="sorted").decode()
        known = ledger.get("options")
        if known is not None and known != identity:
            raise ConfigurationError(
                f"The ledger {self.ledger} belongs to a batch with other options.",
                hint="Use the options of the first run, or choose another --out or --ledger for a new batch.",
            )
        is_read = bool(ledger.get("is_read"))
        if self.source.exists() or not is_read:
            digest = digest_of(self.source)
            if ledger.get("input") not in (None, digest):
                raise ConfigurationError(
                    f"The ledger {self.ledger} belongs to another input: {self.source} has changed, or is another file.",
                    hint="Restore the input, or choose another --out or --ledger for a new batch.",
                )
            ledger.set(options=identity, input=digest, source=str(self.source), out=str(self.out), ended_by=None)
        if not is_read:
            self._add_rows(ledger, on_progress)
            ledger.set(is_read=1)
        if retry_failed:
            ledger.reopen_failed()

    def _add_rows(self, ledger: Ledger, on_progress: OnProgress | None) -> None:
        records = enumerate(read_records(self.source))
        start = int(ledger.get("imported") or 0)
        next(islice(records, start, start), None)  # skip those that are in the ledger
        shown = time.monotonic()
        while rows := [input_row(number, record, self._options) for number, record in islice(records, READ_ROWS)]:
            ledger.add_rows(start, rows)
            start += len(rows)
            if on_progress is not None and time.monotonic() - shown >= 1:
                shown = time.monotonic()
                on_progress(BatchProgress(state="reading", rows=start))

    def _finish(self, ledger: Ledger, on_progress: OnProgress | None, started: float) -> BatchSummary:
        """Write the output and return the summary."""
        progress = running_progress(ledger.totals(), (0.0, 0.0), {}, "writing")
        if on_progress is not None:
            on_progress(progress)
        write_output(ledger, self.out)
        return summary_of(ledger, time.monotonic() - started)


class BatchJob(_BatchJobBase):
    """A batch of the sync client."""

    def run(self, on_progress: OnProgress | None = None, *, retry_failed: bool = False) -> BatchSummary:
        """Answer every row that has no answer yet, and write the output.

        `on_progress` is called about once a second.

        After a crash, run it again: answered rows are not sent again. Ctrl-C lets the running requests finish, then
        raises `KeyboardInterrupt`; a second one does not wait. With `retry_failed`, rows that ended in an error are
        sent again.

        Raises:
            ConfigurationError: The input cannot be read, or is not the one of the ledger.
            FileWriteError: The disk is full.
            ServerUnreachableError: No host answers.
            AuthenticationError: A host refuses the token.
            RateLimitError: A budget is used up.
        """

        def run() -> BatchSummary:
            is_main = threading.current_thread() is threading.main_thread()
            return asyncio.run(self._run(on_progress, retry_failed=retry_failed, catches_signals=is_main))

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return run()
        return _run_in_thread(run)  # in a notebook, for example


class AsyncBatchJob(_BatchJobBase):
    """A batch of the async client."""

    async def run(self, on_progress: OnProgress | None = None, *, retry_failed: bool = False) -> BatchSummary:
        """Async version of `BatchJob.run`; a cancellation aborts the running requests."""
        return await self._run(on_progress, retry_failed=retry_failed, catches_signals=False)


def input_row(number: int, record: Record, options: BatchOptions) -> InputRow:
    """Return the row of a record; `number` counts from 0."""
    custom_id = custom_id_of(record.values, number + 1)
    try:
        if record.error:
            raise InvalidRowError(record.error)
        return InputRow(line=record.line, custom_id=custom_id, request=request_of(record.values, options))
    except InvalidRowError as error:
        return InputRow(line=record.line, custom_id=custom_id, error=RowError(code="invalid_row", message=str(error)))


def ledger_of(out: Path) -> Path:
    """Return the ledger beside an output."""
    return out.with_name(f"{out.name}.ledger")


def open_ledger(path: Path) -> _OpenLedger:
    """Return a context manager of an existing ledger.

    Raises:
        ConfigurationError: There is none.
    """
    if not path.exists():
        raise ConfigurationError(
            f"There is no ledger {path}.", hint="Pass the output or the ledger of an earlier `lmdeck batch run`."
        )
    return _OpenLedger(path)


class _OpenLedger:
    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path)

    def __enter__(self) -> Ledger:
        return self._ledger

    def __exit__(self, *_: object) -> None:
        self._ledger.close()


def progress_of(path: Path) -> BatchProgress:
    """Return the progress of a batch from its ledger.

    Raises:
        ConfigurationError: There is no ledger.
    """
    with open_ledger(path) as ledger:
        totals = ledger.totals()
        reports = [msgspec.json.decode(each, type=BatchProgress) for each in ledger.progress_of_workers()]
        if not ledger.get("is_read"):
            return BatchProgress(state="reading", rows=totals.rows)
        is_over = totals.ended_by is not None or ledger.is_finished()
        speed = max(((each.rows_per_second, each.tokens_per_second) for each in reports), default=(0.0, 0.0))
        hosts: dict[str, tuple[bool, int]] = {}
        for host in (host for each in reports for host in each.hosts):
            is_up, running = hosts.get(host.name, (True, 0))
            hosts[host.name] = is_up and host.is_up, running + host.running
        return running_progress(totals, speed, hosts, "finished" if is_over else "running")


def cancel(path: Path) -> None:
    """End the batch of a ledger; its workers notice within a second.

    Raises:
        ConfigurationError: There is no ledger.
    """
    with open_ledger(path) as ledger:
        ledger.set(ended_by="batch_cancelled")


def summary_of(ledger: Ledger, seconds: float) -> BatchSummary:
    """Return the summary of a batch."""
    totals = ledger.totals()
    progress = running_progress(totals, (0.0, 0.0), {})
    return BatchSummary(
        rows=totals.rows,
        answered=totals.answered,
        failed=totals.rows - totals.answered,
        prompt_tokens=sum(host.prompt_tokens for host in totals.hosts),
        completion_tokens=sum(host.completion_tokens for host in totals.hosts),
        seconds=seconds,
        hosts=progress.hosts,
        slowest=[_figures(row) for row in ledger.slowest(SHOWN_ROWS)],
        failures=[_figures(row) for row in ledger.failures(SHOWN_ROWS)],
    )


def _figures(row: StoredRow) -> RowFigures:
    return RowFigures(number=row.number, line=row.line, custom_id=row.custom_id, seconds=row.seconds, error=row.error)


def _result(row: StoredRow) -> BatchRow:
    return BatchRow(
        number=row.number,
        line=row.line,
        custom_id=row.custom_id,
        reply=None if row.answer is None else read_reply(row.endpoint, row.answer),
        error=row.error,
        response=row.answer,
    )


@contextmanager
def _stop_on_signals(worker: Worker, caught: list[int] | None) -> Iterator[None]:
    """On the first Ctrl-C or SIGTERM, stop a worker and record the signal in `caught`.

    A second signal has its default effect.
    """
    if caught is None:
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: object) -> None:
        caught.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        loop.call_soon_threadsafe(worker.stop)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_in_thread(run: Callable[[], T]) -> T:
    """Return the result of a function that needs a thread without a running event loop."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run).result()
