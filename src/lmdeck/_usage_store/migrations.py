"""The tables of the store, as numbered forward migrations in SQL for both databases.

A released migration is never edited: a later one changes what it made. `BIGINT` and `DOUBLE PRECISION` are 8 bytes in
both.
"""

from __future__ import annotations

__all__ = ["MIGRATIONS", "VERSION"]

_FIRST = (
    """
    CREATE TABLE lmdeck_keys (
        digest TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        start TEXT NOT NULL,
        models TEXT NOT NULL,
        requests_per_minute BIGINT,
        tokens_per_minute BIGINT,
        tokens_per_day BIGINT,
        parallel BIGINT,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION,
        revoked_at DOUBLE PRECISION
    )
    """,
    "CREATE UNIQUE INDEX lmdeck_keys_name ON lmdeck_keys (name) WHERE revoked_at IS NULL",
    """
    CREATE TABLE lmdeck_requests (
        id TEXT PRIMARY KEY,
        ended_at DOUBLE PRECISION NOT NULL,
        day TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        host TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        status BIGINT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        cached_tokens BIGINT,
        reasoning_tokens BIGINT,
        queued DOUBLE PRECISION NOT NULL,
        first_token DOUBLE PRECISION,
        seconds DOUBLE PRECISION NOT NULL,
        finish_reason TEXT NOT NULL,
        error TEXT NOT NULL,
        problems BIGINT NOT NULL,
        cache TEXT NOT NULL
    )
    """,
    "CREATE INDEX lmdeck_requests_at ON lmdeck_requests (ended_at)",
    """
    CREATE TABLE lmdeck_usage (
        day TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        host TEXT NOT NULL,
        requests BIGINT NOT NULL,
        failures BIGINT NOT NULL,
        prompt_tokens BIGINT NOT NULL,
        completion_tokens BIGINT NOT NULL,
        cached_tokens BIGINT NOT NULL,
        reasoning_tokens BIGINT NOT NULL,
        seconds DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (day, key, model, host)
    )
    """,
    """
    CREATE TABLE lmdeck_failures (
        id TEXT PRIMARY KEY,
        ended_at DOUBLE PRECISION NOT NULL,
        kind TEXT NOT NULL,
        message TEXT NOT NULL,
        hint TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        host TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        status BIGINT NOT NULL,
        attempts BIGINT NOT NULL,
        first_token DOUBLE PRECISION,
        seconds DOUBLE PRECISION NOT NULL,
        cassette TEXT NOT NULL
    )
    """,
    "CREATE INDEX lmdeck_failures_at ON lmdeck_failures (ended_at, id)",
)

_PROBLEMS = (
    """
    CREATE TABLE lmdeck_problems (
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        code TEXT NOT NULL,
        dialect TEXT NOT NULL,
        count BIGINT NOT NULL,
        PRIMARY KEY (day, model, code, dialect)
    )
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _PROBLEMS)
"""Step n is `MIGRATIONS[n - 1]`."""

VERSION = len(MIGRATIONS)
