"""Stores of answers, safe to share between threads: in memory, in an SQLite file, in Redis."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from lmdeck._files import create_private_file
from lmdeck._forking import on_fork
from lmdeck._secret import redact_url
from lmdeck._sqlite import use_wal
from lmdeck.errors import ConfigurationError

DEFAULT_BYTES = 1_000_000_000
MEMORY_BYTES = 100_000_000
BUSY_SECONDS = 0.25
"""How long to wait for a locked file, in seconds: an event loop waits, too."""
REDIS_SECONDS = 0.5
"""How long to wait for the Redis server."""
TIMES_BUFFERED = 256
"""After this many uses, their times are written to the file."""


_ADDRESSES = "Write memory:, sqlite:///answers.db, the path of a file, or redis://localhost:6379/0."


class Entry(Struct, frozen=True, array_like=True):
    """A stored answer: its bytes as the server sent them, and their metadata.

    `created` is in seconds since 1970; `variant` describes the model that answered, `""` if it was not known.
    """

    created: float
    status: int
    content_type: str
    variant: str
    body: bytes


class Store(Protocol):
    """A place for entries, which may drop them at any time.

    The cache logs errors of the store; they never reach a request.

    `is_remote` marks a store that waits for a network, so that an event loop must not wait for it.
    """

    is_remote: bool
    max_entry: int

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, or None."""
        ...

    def put(self, key: bytes, entry: Entry) -> None:
        """Store an entry in place of an older one."""
        ...

    def clear(self) -> None:
        """Remove all entries."""
        ...

    def close(self) -> None:
        """Close what is open; the store remains usable."""
        ...


def open_store(url: str, *, max_bytes: int | None = None, ttl: float | None = None) -> Store:
    """Return the store at `memory:`, `sqlite:///file.db` (or a path), or `redis://host:port/0`.

    `max_bytes` limits memory and file; Redis has its own limit (`maxmemory`, with the policy `allkeys-lru`).

    Raises:
        ConfigurationError: The scheme of the URL is unknown, or its package is missing.
    """
    scheme, separator, rest = url.partition(":")
    if url in {"memory", "memory:", "memory://"}:
        return MemoryStore(max_bytes or MEMORY_BYTES)
    if scheme in {"redis", "rediss", "unix"}:
        return RedisStore(url, ttl=ttl)
    if scheme == "sqlite":
        return SQLiteStore(rest.removeprefix("///") or "lmdeck-cache.db", max_bytes or DEFAULT_BYTES)
    if separator and "/" not in scheme and len(scheme) > 1:  # one letter is a drive of Windows
        raise ConfigurationError(f"The cache's address {redact_url(url)!r} has an unknown scheme.", hint=_ADDRESSES)
    return SQLiteStore(url, max_bytes or DEFAULT_BYTES)


class MemoryStore:
    """Entries in this process; the least recently used one is dropped first."""

    is_remote = False

    def __init__(self, max_bytes: int = MEMORY_BYTES) -> None:
        self.max_entry = max_bytes
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._size = 0
        self._renew_lock()
        on_fork(self, MemoryStore._renew_lock)

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Store an entry."""
        with self._lock:
            older = self._entries.pop(key, None)
            self._size += len(entry.body) - (0 if older is None else len(older.body))
            self._entries[key] = entry
            while self._size > self.max_entry and self._entries:
                self._size -= len(self._entries.popitem(last=False)[1].body)

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()
            self._size = 0

    def close(self) -> None:
        """Do nothing: the entries stay as long as the store."""

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, used REAL NOT NULL, size INTEGER NOT NULL, entry BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS answers_used ON answers (used);
CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS answers_in AFTER INSERT ON answers BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER IF NOT EXISTS answers_out AFTER DELETE ON answers BEGIN UPDATE total SET bytes = bytes - old.size; END;
"""


class SQLiteStore:
    """Entries in an SQLite file that processes share; the least recently used are dropped first.

    Each process opens the file on its first use. The times of use are written occasionally, so that a cached answer
    costs one read.
    """

    is_remote = False

    def __init__(self, path: str | Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.path = Path(path)
        self.max_entry = max_bytes
        self._connection: sqlite3.Connection | None = None
        self._parents: list[sqlite3.Connection] = []
        self._used: dict[bytes, float] = {}
        self._lock = threading.Lock()
        on_fork(self, SQLiteStore._after_fork)

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, or None.

        Raises:
            sqlite3.Error: The file cannot be read.
        """
        with self._lock:
            row = self._open().execute("SELECT entry FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            self._used[key] = time.time()
            if len(self._used) >= TIMES_BUFFERED:
                with suppress(sqlite3.Error):  # a locked or full file can be read all the same
                    self._write_times()
        return _decode(row[0])

    def put(self, key: bytes, entry: Entry) -> None:
        """Store an entry, and evict others if there is no room.

        Raises:
            sqlite3.Error: The file cannot be written.
        """
        data = _encode(entry)
        if len(data) > self.max_entry:  # it would evict all others, and then itself
            return
        with self._lock:
            connection = self._open()
            self._write_times()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("DELETE FROM answers WHERE key = ?", (key,))
                connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", (key, time.time(), len(data), data))
                while connection.execute("SELECT bytes FROM total").fetchone()[0] > self.max_entry:
                    connection.execute(
                        "DELETE FROM answers WHERE key = (SELECT key FROM answers ORDER BY used LIMIT 1)"
                    )

    def clear(self) -> None:
        """Remove all entries.

        Raises:
            sqlite3.Error: The file cannot be written.
        """
        with self._lock, self._open() as connection:
            connection.execute("DELETE FROM answers")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            create_private_file(self.path)  # it holds prompts and answers
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                use_wal(connection, BUSY_SECONDS)
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _write_times(self) -> None:
        used, self._used = self._used, {}
        if used:
            with self._open() as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(
                    "UPDATE answers SET used = ? WHERE key = ?", [(at, key) for key, at in used.items()]
                )

    def _after_fork(self) -> None:
        """Leave the connection to the parent process: a child must neither use nor close it."""
        if self._connection is not None:
            self._parents.append(self._connection)
        self._connection = None
        self._lock = threading.Lock()


class RedisStore:
    """Entries in Redis or Valkey, which machines share (extra `redis`).

    The server evicts entries by its own settings: set `maxmemory` and `maxmemory-policy allkeys-lru` there.
    """

    is_remote = True
    max_entry = 64 << 20
    PREFIX = b"lmdeck:answer:"

    def __init__(self, url: str, *, ttl: float | None = None) -> None:
        try:
            import redis  # an extra
        except ImportError:
            raise ConfigurationError(
                "A cache in Redis needs the package redis, which is not installed.",
                hint='Install it with `pip install "lmdeck[redis]"`.',
            ) from None
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
            )
        except ValueError as error:
            raise ConfigurationError(
                f"The cache's address {redact_url(url)!r} is not the address of a Redis server: {error}.",
                hint=_ADDRESSES,
            ) from error
        self._expiry = None if ttl is None else max(1, int(ttl))

    def get(self, key: bytes) -> Entry | None:
        """Return an entry, or None.

        Raises:
            redis.RedisError: The server does not answer.
        """
        data = self._client.get(self.PREFIX + key)
        return None if data is None else _decode(data)

    def put(self, key: bytes, entry: Entry) -> None:
        """Store an entry.

        Raises:
            redis.RedisError: The server does not answer.
        """
        self._client.set(self.PREFIX + key, _encode(entry), ex=self._expiry)

    def clear(self) -> None:
        """Remove all entries.

        Raises:
            redis.RedisError: The server does not answer.
        """
        keys = list(self._client.scan_iter(self.PREFIX + b"*", count=1000))
        if keys:
            self._client.delete(*keys)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
