"""The ledger of a batch: one SQLite file (WAL) with its rows, requests, answers and workers.

Several processes may work on one ledger. A worker leases requests; a lease ends when its worker has not been seen for
`LEASE_SECONDS`, or when its process is known to have ended. What is committed survives `kill -9`; a power failure may
lose the last answers, which are then requested again. The first answer to a request is stored.

Rows refer to requests, so equal requests are stored and sent once. Bodies and answers have separate tables, so that a
change of state does not rewrite them; a body is deleted once it is answered.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from lmdeck._files import create_private_file
from lmdeck._sqlite import use_wal
from lmdeck.batch.alive import AliveLock, is_alive, machine
from lmdeck.batch.input_requests import BatchRequest
from lmdeck.errors import ConfigurationError, FileWriteError

LEASE_SECONDS = 20.0
BUSY_SECONDS = 60.0
SCHEMA_VERSION = 1
CACHE_KIB = 32 << 10
ANSWERED, FAILED = 2, 3  # states of a request; 0 is waiting, 1 is leased
EndedBy: TypeAlias = Literal["batch_cancelled", "batch_expired"]

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE requests (
    id INTEGER PRIMARY KEY, key BLOB, endpoint TEXT NOT NULL, model TEXT NOT NULL, copies INTEGER NOT NULL DEFAULT 1,
    state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, not_before REAL NOT NULL DEFAULT 0,
    worker INTEGER, host TEXT, status INTEGER, request_id TEXT, seconds REAL, error TEXT
);
CREATE UNIQUE INDEX requests_by_key ON requests (key) WHERE key IS NOT NULL;
CREATE INDEX open_requests ON requests (state, model, not_before, id) WHERE state < 2;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE answers (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE rows (number INTEGER PRIMARY KEY, line INTEGER NOT NULL, custom_id TEXT NOT NULL, request INTEGER, error TEXT);
CREATE TABLE workers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, machine TEXT NOT NULL, process INTEGER NOT NULL, seen REAL NOT NULL, progress BLOB
);
CREATE TABLE hosts (
    name TEXT PRIMARY KEY, answered INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
_ROWS = """
SELECT number, line, custom_id, endpoint, body, status, request_id, seconds, coalesce(rows.error, requests.error)
FROM rows LEFT JOIN requests ON requests.id = rows.request LEFT JOIN answers ON answers.id = rows.request
"""
_FULL = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_CANTOPEN": errno.EACCES}


class RowError(Struct, frozen=True, kw_only=True):
    """Why a row has no answer: a `code` for programs, a message, and the line of the input."""

    code: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        return f"{place}{self.message}"


class InputRow(Struct, frozen=True, kw_only=True):
    """A row of the input: its request, or the error of a row that has none."""

    line: int
    custom_id: str
    request: BatchRequest | None = None
    error: RowError | None = None


class Lease(Struct, frozen=True, kw_only=True):
    """A request that a worker has to send; `attempts` counts the earlier ones."""

    id: int
    endpoint: str
    model: str
    body: bytes
    attempts: int = 0


class LeaseOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of a lease: an answer, a final error, or neither.

    Without either, the request is sent again after `delay` seconds.

    `counts` is whether that was an attempt. `seconds` is the time that the answer took.
    """

    id: int
    host: str
    answer: bytes | None = None
    error: RowError | None = None
    delay: float = 0.0
    counts: bool = True
    status: int | None = None
    request_id: str | None = None
    seconds: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class HostTotals(Struct, frozen=True, kw_only=True):
    """The rows and tokens of one host, by all workers of the batch."""

    name: str
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Totals(Struct, frozen=True, kw_only=True):
    """The state of a batch: rows, faulty lines, running requests, and figures of its hosts."""

    rows: int
    faulty: int
    leased: int
    hosts: list[HostTotals]
    ended_by: EndedBy | None = None

    @property
    def answered(self) -> int:
        """The number of rows that have an answer."""
        return sum(host.answered for host in self.hosts)

    @property
    def failed(self) -> int:
        """The number of rows that ended in an error, faulty lines included."""
        return self.faulty + sum(host.failed for host in self.hosts)


class StoredRow(Struct, frozen=True, kw_only=True):
    """A row with what is known of its request."""

    number: int
    line: int
    custom_id: str
    endpoint: str = ""
    answer: bytes | None = None
    status: int | None = None
    request_id: str | None = None
    seconds: float | None = None
    error: RowError | None = None


class Ledger:
    """An open ledger; used by one thread at a time."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        """Open a ledger, and create it if it does not exist.

        None is a ledger in the memory of this process.

        Raises:
            FileWriteError: It cannot be written.
            ConfigurationError: The file is not a ledger of this version.
        """
        self.path = path
        self._clock = clock
        self._alive = None if path is None else AliveLock(Path(f"{path}.lock"))
        if path is not None:
            create_private_file(path)
        with self._translated():
            self._connection = sqlite3.connect(
                path or ":memory:", BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run(f"PRAGMA cache_size = -{CACHE_KIB}")
        if self.path is not None:
            use_wal(self._connection, BUSY_SECONDS)
        run("PRAGMA synchronous = NORMAL")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0:
            with self._transaction():
                if run("PRAGMA user_version").fetchone()[0] == 0:  # unless another process has just done it
                    for statement in _SCHEMA.split(";"):
                        run(statement)
                    self._set("id", uuid.uuid4().hex)
                    run(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"The ledger {self.path} has version {version}; this lmdeck reads version {SCHEMA_VERSION}.",
                hint="Finish the batch with the version of lmdeck that started it, or choose another --ledger.",
            )

    def close(self) -> None:
        """Close the file."""
        with suppress(sqlite3.Error):  # a full disk must not hide the error that was raised for it
            self._connection.close()
        if self._alive is not None:
            self._alive.release()

    # --- the input ---

    @property
    def id(self) -> str:
        """The batch's own random id."""
        return str(self.get("id"))

    def get(self, name: str) -> Any:
        """Return a stored value, or None."""
        with self._translated():
            return self._get(name)

    def set(self, **values: Any) -> None:
        """Store values under their names."""
        with self._translated(), self._transaction():
            for name, value in values.items():
                self._set(name, value)

    def add_rows(self, start: int, rows: Sequence[InputRow]) -> None:
        """Add rows, numbered from `start`.

        Existing ones are skipped. The first row of the input is 0.
        """
        with self._translated(), self._transaction():
            imported = self._get("imported") or 0
            for number, row in enumerate(rows, start):
                if number >= imported:
                    self._add_row(number, row)
            end = start + len(rows)
            if end > imported:
                self._set("imported", end)
                faulty = sum(row.error is not None for row in rows[max(imported - start, 0) :])
                self._set("faulty", (self._get("faulty") or 0) + faulty)

    def _add_row(self, number: int, row: InputRow) -> None:
        run = self._connection.execute
        id_: int | None = None
        if row.request is not None:
            request = row.request
            id_, copies = run(
                "INSERT INTO requests (key, endpoint, model) VALUES (?, ?, ?)"
                " ON CONFLICT (key) WHERE key IS NOT NULL DO UPDATE SET copies = copies + 1 RETURNING id, copies",
                (request.key, request.endpoint, request.model),
            ).fetchone()
            if copies == 1:
                run("INSERT INTO bodies (id, body) VALUES (?, ?)", (id_, request.body))
        error = None if row.error is None else msgspec.json.encode(row.error).decode()
        run("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", (number, row.line, row.custom_id, id_, error))

    # --- workers ---

    def register(self) -> int:
        """Register a worker and return its id; if it is the only one, earlier leases end.

        A worker that is alive holds a shared lock on a file beside the ledger, where the system has such locks.
        """
        is_alone = self._alive is not None and self._alive.try_exclusive()
        with self._translated(), self._transaction():
            if is_alone:
                self._connection.execute("DELETE FROM workers")
            worker = self._connection.execute(
                "INSERT INTO workers (machine, process, seen) VALUES (?, ?, ?) RETURNING id",
                (machine(), os.getpid(), self._clock()),
            ).fetchone()[0]
            self._free_lost_leases()
        if self._alive is not None:
            self._alive.share()
        return int(worker)

    def heartbeat(self, worker: int, progress: bytes | None = None) -> Totals:
        """Note that a worker is alive, free the requests of dead workers, and return the totals."""
        now = self._clock()
        with self._translated(), self._transaction():
            self._connection.execute(
                "INSERT INTO workers (id, machine, process, seen, progress) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, progress = excluded.progress",
                (worker, machine(), os.getpid(), now, progress),
            )
            self._connection.execute("DELETE FROM workers WHERE seen < ?", (now - LEASE_SECONDS,))
            here = self._connection.execute(
                "SELECT id, process FROM workers WHERE machine = ?", (machine(),)
            ).fetchall()
            dead = [(id_,) for id_, process in here if not is_alive(process)]
            self._connection.executemany("DELETE FROM workers WHERE id = ?", dead)
            self._free_lost_leases()
            return self._totals()

    def leave(self, worker: int) -> None:
        """Free the requests of a worker that ends."""
        with self._translated(), self._transaction():
            self._connection.execute("DELETE FROM workers WHERE id = ?", (worker,))
            self._free_lost_leases()

    def progress_of_workers(self) -> list[bytes]:
        """Return the last progress of each living worker."""
        with self._translated():
            found = self._connection.execute(
                "SELECT progress FROM workers WHERE seen >= ? AND progress IS NOT NULL",
                (self._clock() - LEASE_SECONDS,),
            )
            return [progress for (progress,) in found]

    def _free_lost_leases(self) -> None:
        self._connection.execute(
            "UPDATE requests SET state = 0, worker = NULL WHERE state = 1 AND state < 2"
            " AND worker NOT IN (SELECT id FROM workers)"
        )

    # --- requests ---

    def open_models(self) -> list[str]:
        """Return the models that requests wait for."""
        models: list[str] = []
        with self._translated():
            query = "SELECT min(model) FROM requests WHERE state = 0 AND state < 2 AND model > ?"
            found = self._connection.execute(
                "SELECT min(model) FROM requests WHERE state = 0 AND state < 2"
            ).fetchone()[0]
            while found is not None:
                models.append(found)
                found = self._connection.execute(query, (found,)).fetchone()[0]
        return models

    def is_finished(self) -> bool:
        """Whether every request was answered or has failed."""
        with self._translated():
            return self._connection.execute("SELECT 1 FROM requests WHERE state < 2 LIMIT 1").fetchone() is None

    def exchange(
        self, worker: int, outcomes: Sequence[LeaseOutcome], demands: Sequence[tuple[str, int]] = ()
    ) -> list[list[Lease]]:
        """Record outcomes, and lease requests of each model as demanded, in one transaction.

        A cancelled batch leases none.

        Raises:
            FileWriteError: The disk is full; nothing was recorded or leased.
        """
        with self._translated(), self._transaction():
            for outcome in outcomes:
                self._record(outcome)
            if demands and self._get("ended_by") is not None:
                return [[] for _ in demands]
            return [self._lease(worker, model, count) for model, count in demands]

    def _lease(self, worker: int, model: str, count: int) -> list[Lease]:
        run = self._connection.execute
        found = run(
            "SELECT requests.id, endpoint, body, attempts FROM requests JOIN bodies ON bodies.id = requests.id"
            " WHERE state = 0 AND state < 2 AND model = ? AND not_before <= ?"
            " ORDER BY not_before, requests.id LIMIT ?",
            (model, self._clock(), count),
        ).fetchall()
        self._connection.executemany(
            "UPDATE requests SET state = 1, worker = ? WHERE id = ?", [(worker, id_) for id_, *_ in found]
        )
        return [
            Lease(id=id_, endpoint=endpoint, model=model, body=body, attempts=attempts)
            for id_, endpoint, body, attempts in found
        ]

    def _record(self, outcome: LeaseOutcome) -> None:
        if outcome.answer is None and outcome.error is None:
            self._connection.execute(
                "UPDATE requests SET state = 0, worker = NULL, attempts = attempts + ?, not_before = ?"
                " WHERE id = ? AND state < 2",
                (outcome.counts, self._clock() + outcome.delay if outcome.delay else 0, outcome.id),
            )
            return
        is_answered = outcome.answer is not None
        error = None if outcome.error is None else msgspec.json.encode(outcome.error).decode()
        found = self._connection.execute(
            "UPDATE requests SET state = ?, worker = NULL, attempts = attempts + 1, host = ?, status = ?, request_id = ?,"
            " seconds = ?, error = ? WHERE id = ? AND state < 2 RETURNING copies",
            (
                ANSWERED if is_answered else FAILED,
                outcome.host,
                outcome.status,
                outcome.request_id,
                outcome.seconds,
                error,
                outcome.id,
            ),
        ).fetchone()
        if found is None:  # another worker has already recorded its end
            return
        if is_answered:
            self._connection.execute("INSERT INTO answers (id, body) VALUES (?, ?)", (outcome.id, outcome.answer))
            self._connection.execute("DELETE FROM bodies WHERE id = ?", (outcome.id,))
        self._count(outcome, found[0])

    def _count(self, outcome: LeaseOutcome, copies: int) -> None:
        is_answered = outcome.answer is not None
        self._connection.execute(
            "INSERT INTO hosts VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE SET answered = answered + ?2,"
            " failed = failed + ?3, prompt_tokens = prompt_tokens + ?4, completion_tokens = completion_tokens + ?5",
            (
                outcome.host,
                copies if is_answered else 0,
                0 if is_answered else copies,
                outcome.prompt_tokens,
                outcome.completion_tokens,
            ),
        )

    def reopen_failed(self) -> None:
        """Reset failed requests, so that they are sent again."""
        with self._translated(), self._transaction():
            self._connection.execute(
                "UPDATE requests SET state = 0, attempts = 0, not_before = 0, error = NULL WHERE state = 3"
            )
            self._connection.execute("UPDATE hosts SET failed = 0")

    # --- results ---

    def totals(self) -> Totals:
        """Return the totals of all workers."""
        with self._translated():
            return self._totals()

    def _totals(self) -> Totals:
        run = self._connection.execute
        names = HostTotals.__struct_fields__
        hosts = [
            HostTotals(**dict(zip(names, found, strict=True)))
            for found in run("SELECT name, answered, failed, prompt_tokens, completion_tokens FROM hosts ORDER BY name")
        ]
        leased = run("SELECT count(*) FROM requests WHERE state = 1 AND state < 2").fetchone()[0]
        return Totals(
            rows=self._get("imported") or 0,
            faulty=self._get("faulty") or 0,
            leased=leased,
            hosts=hosts,
            ended_by=self._get("ended_by"),
        )

    def rows(self) -> Iterator[StoredRow]:
        """Yield all rows in the order of the input, with their answers, if any."""
        with self._translated():
            yield from map(_stored_row, self._connection.execute(f"{_ROWS} ORDER BY number"))

    def slowest(self, count: int) -> list[StoredRow]:
        """Return the rows whose answers took longest."""
        query = f"{_ROWS} WHERE seconds IS NOT NULL ORDER BY seconds DESC, number LIMIT ?"
        with self._translated():
            return list(map(_stored_row, self._connection.execute(query, (count,))))

    def failures(self, count: int) -> list[StoredRow]:
        """Return the first rows that ended in an error."""
        query = f"{_ROWS} WHERE rows.error IS NOT NULL OR requests.state = 3 ORDER BY number LIMIT ?"
        with self._translated():
            return list(map(_stored_row, self._connection.execute(query, (count,))))

    # --- SQLite ---

    def _get(self, name: str) -> Any:
        found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def _set(self, name: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate SQLite's errors.

        Raises:
            FileWriteError: The disk is full, or the file cannot be written.
            ConfigurationError: The file is not a ledger.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"} or name in {"", "SQLITE_ERROR"}:
                raise ConfigurationError(
                    f"{self.path} is not the ledger of a batch: {error}.",
                    hint="Pass the output or the ledger of an earlier `lmdeck batch run`.",
                ) from error
            number = next((code for start, code in _FULL.items() if name.startswith(start)), errno.EIO)
            raise FileWriteError(
                f"{self.path} cannot be written: {error}.",
                path=str(self.path),
                errno=number,
                hint="Free disk space or make the file writable, then run the batch again: answered rows are not sent again.",
            ) from error


def _stored_row(found: tuple[Any, ...]) -> StoredRow:
    number, line, custom_id, endpoint, body, status, request_id, seconds, error = found
    row_error = None if error is None else msgspec.json.decode(error, type=RowError)
    return StoredRow(
        number=number,
        line=line,
        custom_id=custom_id,
        endpoint=endpoint or "",
        answer=body,
        status=status,
        request_id=request_id,
        seconds=seconds,
        error=None if row_error is None else msgspec.structs.replace(row_error, line=line),
    )
