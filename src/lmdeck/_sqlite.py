"""SQLite files that several processes use at once."""

from __future__ import annotations

import sqlite3
import time

__all__ = ["use_wal"]

PAUSE = 0.01


def use_wal(connection: sqlite3.Connection, patience: float) -> None:
    """Switch a file to its write-ahead log: readers and the writer do not wait for each other.

    SQLite refuses the switch at once while another connection holds the file, instead of waiting for its time limit, so
    it is tried again for `patience` seconds. Where the log is not possible (in memory), the old journal stays.

    Raises:
        sqlite3.Error: The file is still locked, or is not a database.
    """
    deadline = time.monotonic() + patience
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)
