"""The store in one SQLite file.

WAL: readers and the writer do not wait for each other. `synchronous=NORMAL`: what is committed survives the end of the process
(kill -9), and an end of the machine cannot damage the file, though it may undo the last commits (sqlite.org/wal.html).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lmdeck._files import create_private_file
from lmdeck._sqlite import use_wal
from lmdeck._usage_store.database import Connection
from lmdeck._usage_store.errors import StoreError
from lmdeck.errors import ConfigurationError, FileWriteError

__all__ = ["SQLite"]

BUSY_SECONDS = 10.0
_abandoned: list[sqlite3.Connection] = []


class SQLite:
    """A SQLite file.

    A new one, with its `-wal` and `-shm` files, is readable by its owner only.
    """

    interruptions: tuple[type[Exception], ...] = (sqlite3.OperationalError, StoreError)
    failures: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.label = str(path)

    def connect(self) -> Connection:
        """Open the file, or create it.

        Raises:
            ConfigurationError: It is not a SQLite file, or may not be read or written.
            StoreError: Another program has locked it.
        """
        try:
            create_private_file(self.path)
        except FileWriteError as error:
            raise ConfigurationError(f"The store {error.message}", hint=error.hint) from error
        try:
            raw = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"The store {self.label} cannot be opened: {error}.", hint="Check `[store] url`, or `--store`."
            ) from error
        try:
            self._prepare(raw)
        except BaseException:
            raw.close()
            raise
        return Connection(raw, begin="BEGIN IMMEDIATE", marker="?", abandon=lambda: _abandoned.append(raw))

    def _prepare(self, raw: sqlite3.Connection) -> None:
        try:
            use_wal(raw, BUSY_SECONDS)
            raw.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreError(f"The store {self.label} is locked by another program.") from error
            raise ConfigurationError(
                f"The store {self.label} cannot be written: {error}.", hint="Check its owner and its folder's."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"The store {self.label} cannot be read: {error}.",
                hint="Name another file, or restore this one from a backup.",
            ) from error
