"""The folder of files and batches: contents and ledgers as files, and an index in SQLite.

All gateway processes on one machine share it. A file is written under a temporary name and renamed before the index
lists it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from lmdeck._usage_store.database import Connection
from lmdeck._usage_store.sqlite import SQLite
from lmdeck.errors import ConfigurationError
from lmdeck.gateway.batch.records import OVER, Batch, StoredFile

__all__ = ["BatchStore", "new_id"]

INDEX = "index.db"
MAX_LISTED = 10_000
_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, bytes INTEGER NOT NULL,
    expires_at INTEGER, record BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, is_over INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS open_batches ON batches (number) WHERE is_over = 0
"""
R = TypeVar("R", StoredFile, Batch)
T = TypeVar("T")


class Page(Struct, frozen=True):
    """A part of a list, newest first unless asked otherwise."""

    records: Sequence[StoredFile | Batch]
    has_more: bool


def new_id(prefix: str) -> str:
    """Return a random id with a prefix, such as `file-…`."""
    return f"{prefix}{secrets.token_hex(12)}"


class BatchStore:
    """The files and batches of all keys; its methods block, and may be called from any thread."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether the folder exists; it is created for the first file."""
        return (self.folder / INDEX).exists()

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def content_of(self, file_id: str) -> Path:
        """Return the path of a file's content."""
        return self.folder / "files" / file_id

    def ledger_of(self, batch_id: str) -> Path:
        """Return the path of a batch's ledger."""
        return self.folder / "ledgers" / f"{batch_id}.ledger"

    @property
    def runner_lock(self) -> Path:
        """The lock file of the process that runs the batches."""
        return self.folder / "runner.lock"

    def _run(self, work: Callable[[Connection], T]) -> T:
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            with self._connection.transaction():
                return work(self._connection)

    def _open(self) -> Connection:
        try:
            for name in ("files", "ledgers"):
                (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The folder {self.folder} of batches cannot be created: {error.strerror}.",
                hint="Set `folder` in `[batches]` to a folder that the gateway can write.",
            ) from error
        connection = SQLite(self.folder / INDEX).connect()
        with connection.transaction():
            for statement in _TABLES.split(";"):
                connection.run(statement)
        return connection

    # --- files ---

    def temporary_path(self) -> Path:
        """Return a new path beside the contents for a file that is being written.

        The folder is created if necessary.
        """
        self._run(lambda _: None)
        return self.content_of(f".{secrets.token_hex(8)}.tmp")

    def add_file(self, record: StoredFile, content: Path) -> None:
        """Add a file whose content was written to `content`."""
        content.replace(self.content_of(record.id))
        values = (record.id, record.owner, record.bytes, record.expires_at, msgspec.json.encode(record))
        self._run(
            lambda index: index.change(
                "INSERT OR REPLACE INTO files (id, owner, bytes, expires_at, record) VALUES (?, ?, ?, ?, ?)", values
            )
        )

    def file(self, file_id: str, owner: str) -> StoredFile | None:
        """Return a file of an owner; None if the owner has no such file, or it has expired."""
        query = "SELECT record FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?)"
        return self._one(StoredFile, query, (file_id, owner, int(time.time())))

    def bytes_of(self, owner: str) -> int:
        """Return the size of all files of an owner."""
        query = "SELECT coalesce(sum(bytes), 0) FROM files WHERE owner = ?"
        return self._run(lambda index: int(index.run(query, (owner,))[0][0]))

    def delete_file(self, file_id: str) -> None:
        """Remove a file and its content."""
        self._run(lambda index: index.change("DELETE FROM files WHERE id = ?", (file_id,)))
        self.content_of(file_id).unlink(missing_ok=True)

    def files(self, owner: str, purpose: str | None, after: str | None, limit: int, *, is_ascending: bool) -> Page:
        """Return files of an owner, those after the one with the id `after`."""
        query = "SELECT record FROM files WHERE owner = ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY number LIMIT ?"
        found = self._all(StoredFile, query, (owner, int(time.time()), MAX_LISTED))
        named = [file for file in found if purpose in (None, file.purpose)]
        return _page(named if is_ascending else named[::-1], after, limit)

    def remove_expired(self, batches_before: float) -> None:
        """Remove expired files, and the ledgers of finished batches created before a time."""
        now = int(time.time())
        query = "SELECT record FROM files WHERE expires_at <= ? LIMIT ?"
        for file in self._all(StoredFile, query, (now, MAX_LISTED)):
            self.delete_file(file.id)
        for batch in self._all(
            Batch, "SELECT record FROM batches WHERE is_over = 1 ORDER BY number LIMIT ?", (MAX_LISTED,)
        ):
            if batch.created_at < batches_before:
                self._remove_ledger(batch)

    def _remove_ledger(self, batch: Batch) -> None:
        ledger = self.ledger_of(batch.id)
        for suffix in ("", "-wal", "-shm", ".lock"):
            with suppress(FileNotFoundError):
                ledger.with_name(ledger.name + suffix).unlink()

    # --- batches ---

    def add_batch(self, record: Batch) -> None:
        """Add a batch."""
        values = (record.id, record.owner, msgspec.json.encode(record))
        self._run(
            lambda index: index.change("INSERT INTO batches (id, owner, is_over, record) VALUES (?, ?, 0, ?)", values)
        )

    def batch(self, batch_id: str, owner: str | None = None) -> Batch | None:
        """Return a batch; with `owner`, only one of theirs."""
        query = "SELECT record FROM batches WHERE id = ?"
        if owner is None:
            return self._one(Batch, query, (batch_id,))
        return self._one(Batch, f"{query} AND owner = ?", (batch_id, owner))

    def batches(self, owner: str, after: str | None, limit: int) -> Page:
        """Return batches of an owner, newest first, those after the one with the id `after`."""
        query = "SELECT record FROM batches WHERE owner = ? ORDER BY number DESC LIMIT ?"
        return _page(self._all(Batch, query, (owner, MAX_LISTED)), after, limit)

    def open_batches(self) -> list[Batch]:
        """Return the batches that are not over, oldest first."""
        query = "SELECT record FROM batches WHERE is_over = 0 ORDER BY number LIMIT ?"
        return self._all(Batch, query, (MAX_LISTED,))

    def change_batch(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        """Change a batch in one transaction, and return it; one that is over stays as it is."""

        def work(index: Connection) -> Batch:
            batch = msgspec.json.decode(
                index.run("SELECT record FROM batches WHERE id = ?", (batch_id,))[0][0], type=Batch
            )
            if batch.status in OVER:
                return batch
            changed = change(batch)
            index.change(
                "UPDATE batches SET is_over = ?, record = ? WHERE id = ?",
                (int(changed.is_over), msgspec.json.encode(changed), batch_id),
            )
            return changed

        return self._run(work)

    def _all(self, kind: type[R], query: str, parameters: Sequence[object]) -> list[R]:
        if not self.exists:
            return []
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            return [msgspec.json.decode(record, type=kind) for (record,) in self._connection.run(query, parameters)]

    def _one(self, kind: type[R], query: str, parameters: Sequence[object]) -> R | None:
        return next(iter(self._all(kind, query, parameters)), None)


def _page(records: Sequence[R], after: str | None, limit: int) -> Page:
    ids = [record.id for record in records]
    start = ids.index(after) + 1 if after in ids else 0
    return Page(records[start : start + limit], len(records) > start + limit)
