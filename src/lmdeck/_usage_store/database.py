"""The interface of the store's databases: connections, and exclusive write transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Protocol, TypeAlias

from lmdeck._usage_store.migrations import MIGRATIONS, VERSION
from lmdeck.errors import ConfigurationError

__all__ = ["Connection", "Database", "Row", "migrate"]

Row: TypeAlias = Sequence[Any]


class RawConnection(Protocol):
    """A connection of `sqlite3` or psycopg, in autocommit mode."""

    def execute(self, sql: Any, parameters: Any = ..., /) -> Any:
        """Run a statement and return its cursor."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Database(Protocol):
    """A database server or file. `label` names it in messages, without a password."""

    label: str
    interruptions: tuple[type[Exception], ...]
    """Errors after which the same write may succeed later.

    For example a lost connection, a locked file, a full disk.
    """
    failures: tuple[type[Exception], ...]
    """All errors of the database's own package."""

    def connect(self) -> Connection:
        """Open a connection.

        Raises:
            ConfigurationError: The address is wrong, or access is denied.
            StoreError: The database does not answer.
        """
        ...


class Connection:
    """A connection that runs statements written with `?`.

    `begin` opens a transaction that excludes other writers; `marker` is the database's own parameter placeholder.
    `abandon` makes a forked process forget the connection without closing that of its parent.
    """

    def __init__(self, raw: RawConnection, *, begin: str, marker: str, abandon: Callable[[], object]) -> None:
        self._raw = raw
        self._begin = begin
        self._marker = marker
        self.abandon = abandon

    def run(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        cursor = self._execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def change(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement and return the number of changed rows."""
        return int(self._execute(sql, parameters).rowcount)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction without other writers; an exception rolls it back."""
        self._raw.execute(self._begin)
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the connection may be lost; the first error is the one that counts
                self._raw.execute("ROLLBACK")
            raise
        self._raw.execute("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def _execute(self, sql: str, parameters: Sequence[object]) -> Any:
        return self._raw.execute(_marked(sql, self._marker), tuple(parameters))


@cache
def _marked(sql: str, marker: str) -> str:
    return sql.replace("?", marker)


def migrate(connection: Connection, label: str) -> None:
    """Migrate the tables to the schema of this version of lmdeck.

    Raises:
        ConfigurationError: A newer lmdeck has written them.
    """
    with connection.transaction():
        connection.run("CREATE TABLE IF NOT EXISTS lmdeck_schema (version BIGINT PRIMARY KEY)")
        found = connection.run("SELECT COALESCE(MAX(version), 0) FROM lmdeck_schema")[0][0]
        if found > VERSION:
            raise ConfigurationError(
                f"{label} was written by a newer lmdeck: its tables have version {found}, this lmdeck knows {VERSION}.",
                hint="Update lmdeck, or use another store; nothing was changed.",
            )
        for number in range(found + 1, VERSION + 1):
            for statement in MIGRATIONS[number - 1]:
                connection.run(statement)
            connection.run("INSERT INTO lmdeck_schema (version) VALUES (?)", (number,))
