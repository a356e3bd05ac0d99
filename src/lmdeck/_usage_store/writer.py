"""One writing thread: queued writes share a transaction, and thus a commit.

A write is a function of a connection, or of a connection and a list of records that were queued one after the other. Its
future is done when the write is committed, and fails with the write's own error. After an interruption (a locked file, a lost
connection, a full disk) the writer connects again and repeats the transaction: so a write must be safe to repeat.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct

from lmdeck._usage_store.database import Connection, Database, migrate
from lmdeck._usage_store.errors import StoreError
from lmdeck.errors import ConfigurationError, describe

__all__ = ["Write", "WriterThread"]

T = TypeVar("T")
Write: TypeAlias = Callable[[Connection], T]
WriteRecords: TypeAlias = Callable[[Connection, list[Any]], object]
_log = logging.getLogger("lmdeck.gateway")

MAX_IN_ONE_TRANSACTION = 500
MAX_WAITING = 100_000
FIRST_PAUSE, MAX_PAUSE = 0.05, 2.0
CLOSE_SECONDS = 10.0


class _QueuedWrite(Struct, frozen=True):
    """A queued write; without a future, a failure is logged."""

    write: Write[Any] | WriteRecords
    future: Future[Any] | None = None
    record: object = None


class WriterThread:
    """The writing thread of one process; it starts with the first write.

    Before a commit it waits `pause` seconds for more writes.
    """

    def __init__(self, database: Database, pause: float = 0.0) -> None:
        self._database = database
        self._pause = pause
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._jobs: queue.SimpleQueue[_QueuedWrite | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._give_up_at = float("inf")

    def submit(self, write: Write[T]) -> Future[T]:
        """Write soon, and return a future that is done after the commit."""
        future: Future[T] = Future()
        self._add(_QueuedWrite(write, future))
        return future

    def add_record(self, write: WriteRecords, record: object, future: Future[None] | None = None) -> None:
        """Write a record soon, together with others of the same function.

        The future is done after the commit; without one, a failure is logged.
        """
        self._add(_QueuedWrite(write, future, record))

    def _add(self, job: _QueuedWrite) -> None:
        with self._lock:
            if self._is_closed:
                self._fail(job.future, StoreError(f"The store {self._database.label} is closed."))
            elif self._jobs.qsize() >= MAX_WAITING:
                self._fail(
                    job.future,
                    StoreError(f"{MAX_WAITING} writes are already waiting for the store {self._database.label}."),
                )
            else:
                self._jobs.put(job)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="lmdeck-store", daemon=True)
                    self._thread.start()

    def _fail(self, future: Future[Any] | None, error: Exception) -> None:
        if future is None:
            _log.error("A record is lost: %s", error)
        else:
            future.set_exception(error)

    def close(self) -> None:
        """Write what is queued, for at most ten seconds, and stop."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._give_up_at = time.monotonic() + CLOSE_SECONDS
            self._closing.set()
            self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def abandon(self) -> None:
        """Reset the state in a forked process: thread, connection and queue belong to the parent."""
        if self._connection is not None:
            self._connection.abandon()
        self.__init__(self._database, self._pause)  # type: ignore[misc]  # every part of the state is the parent's

    def _run(self) -> None:
        is_open = True
        while is_open:
            jobs, is_open = self._next_jobs()
            self._write(jobs)
        if self._connection is not None:
            self._connection.close()

    def _next_jobs(self) -> tuple[list[_QueuedWrite], bool]:
        """Wait for a job; return it with the queued ones, and whether more may come."""
        jobs: list[_QueuedWrite] = []
        job = self._jobs.get()
        if job is not None and self._pause:
            self._closing.wait(self._pause)
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_IN_ONE_TRANSACTION:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _write(self, jobs: list[_QueuedWrite]) -> None:
        """Write jobs in one transaction; if one of them fails, each in its own."""
        try:
            results = self._commit(jobs)
        except Exception as error:
            if len(jobs) > 1 and not isinstance(error, StoreError):
                for job in jobs:
                    self._write([job])
                return
            for job in jobs:
                self._fail(job.future, self._failure(error))
        else:
            for job, result in zip(jobs, results, strict=True):
                if job.future is not None:
                    job.future.set_result(result)

    def _failure(self, error: Exception) -> Exception:
        """Return the error of a write; those of the database package become a `StoreError`."""
        if not isinstance(error, self._database.failures):
            return error
        return StoreError(f"The store {self._database.label} refused a write: {describe(str(error))}.")

    def _commit(self, jobs: list[_QueuedWrite]) -> list[Any]:
        """Run jobs in one transaction and return their results; repeat it after an interruption.

        Raises:
            Exception: What a write raises.
            StoreError: The interruption lasts, and the writer was closed.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                connection = self._connected()
                with connection.transaction():
                    return _run(jobs, connection)
            except self._database.interruptions as error:
                self._disconnect()
                self._raise_if_closing(error, len(jobs))
                if pause == FIRST_PAUSE:
                    reason = describe(str(error))
                    _log.warning("The store %s could not be written: %s. Trying again.", self._database.label, reason)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)

    def _connected(self) -> Connection:
        """Return the open connection, or a new one with its tables."""
        if self._connection is None:
            try:
                self._connection = self._database.connect()
                migrate(self._connection, self._database.label)
            except ConfigurationError as error:  # it was valid when the store was opened, and may become so again
                raise StoreError(error.message, hint=error.hint) from error
        return self._connection

    def _raise_if_closing(self, error: Exception, count: int) -> None:
        if time.monotonic() >= self._give_up_at:
            _log.error("%d writes to the store %s are lost.", count + self._jobs.qsize(), self._database.label)
            raise StoreError(f"The store {self._database.label} could not be written: {describe(str(error))}.")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be lost already
                connection.close()


def _run(jobs: list[_QueuedWrite], connection: Connection) -> list[Any]:
    """Run the writes of jobs and return their results.

    Records that follow each other are written together.
    """
    results: list[Any] = []
    for write, same in groupby(jobs, key=attrgetter("write")):
        records = [job.record for job in same]
        if records[0] is None:
            results.append(write(connection))
        else:
            write(connection, records)
            results += [None] * len(records)
    return results
