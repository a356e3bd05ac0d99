"""The store of the gateway and of `lmdeck.observe.usage`.

It holds keys, usage and failures, in SQLite or PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path

from lmdeck._secret import redact_url
from lmdeck._usage_store.errors import StoreError
from lmdeck._usage_store.records import (
    FailureGroup,
    FailureRecord,
    Key,
    KeyLimits,
    ProblemRow,
    UsageColumn,
    UsageRecord,
    UsageRow,
    day_of,
)
from lmdeck._usage_store.sqlite import SQLite
from lmdeck._usage_store.store import KEEP_DAYS, GatewayStore
from lmdeck.errors import ConfigurationError

__all__ = [
    "DEFAULT_URL",
    "KEEP_DAYS",
    "POSTGRES",
    "FailureGroup",
    "FailureRecord",
    "GatewayStore",
    "Key",
    "KeyLimits",
    "ProblemRow",
    "StoreError",
    "UsageColumn",
    "UsageRecord",
    "UsageRow",
    "day_of",
    "open_store",
    "sqlite_path",
]

DEFAULT_URL = "sqlite:///gateway.db"
SQLITE, POSTGRES = "sqlite:///", ("postgresql://", "postgres://")


def open_store(url: str | Path, *, keep_days: float = KEEP_DAYS, pause: float = 0.0) -> GatewayStore:
    """Open a store; create it if it does not exist.

    `url` is `sqlite:///gateway.db` (relative to the working directory), `sqlite:////var/lib/lmdeck/gateway.db`, the path of a
    file, or `postgresql://user@host/database`. Rows of single requests are removed after `keep_days`, totals stay.
    Each write waits `pause` seconds for others, with which it shares a commit.

    Raises:
        ConfigurationError: The address is wrong, access is denied, or a newer lmdeck has written the store.
        StoreError: The store does not answer.
    """
    text = str(url)
    if text.startswith(POSTGRES):
        from lmdeck._usage_store.postgres import Postgres  # imported late: psycopg is an extra

        return GatewayStore(Postgres(text), keep_days=keep_days, pause=pause)
    return GatewayStore(SQLite(sqlite_path(text)), keep_days=keep_days, pause=pause)


def sqlite_path(url: str) -> str:
    """Return the path of the SQLite file that an address names.

    Raises:
        ConfigurationError: The address is wrong.
    """
    path = url.removeprefix(SQLITE)
    if "://" in path or not path.strip() or ":memory:" in path or "\0" in path:
        raise ConfigurationError(
            f"The store's address {redact_url(url)!r} is not valid.",
            hint="Write sqlite:///gateway.db, a path, or postgresql://user@host/database.",
        )
    return path
