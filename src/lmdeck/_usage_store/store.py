"""The store: keys, usage and failures, in one SQLite file or in PostgreSQL.

A finished request is one row of `lmdeck_requests` and is added to the totals of its day, key, model and host in `lmdeck_usage`;
both are written in one transaction. Rows of requests are removed after `keep_days`, totals stay.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache, partial
from operator import add
from typing import Any, Self, TypeVar, get_args

import msgspec

from lmdeck._forking import on_fork
from lmdeck._usage_store.database import Connection, Database, Row, migrate
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
from lmdeck._usage_store.writer import WriterThread
from lmdeck.errors import ConfigurationError, describe
from lmdeck.stats import Usage

__all__ = ["MAX_FAILURES", "GatewayStore"]

T = TypeVar("T")
MAX_FAILURES = 1000
KEEP_DAYS = 30.0
DAY = 86400.0
TRIM_SECONDS = 3600.0
WRITE_SECONDS = 30.0
TEXT_CHARS = 300
LARGEST = 2**53

_KEY_COLUMNS = (
    "digest, name, start, models, requests_per_minute, tokens_per_minute, tokens_per_day, parallel, "
    "created_at, expires_at, revoked_at"
)
_REQUEST_COLUMNS = (
    "id, ended_at, day, key, model, host, endpoint, status, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, "
    "queued, first_token, seconds, finish_reason, error, problems, cache"
)
_FAILURE_COLUMNS = (
    "id, ended_at, kind, message, hint, key, model, host, endpoint, status, attempts, first_token, seconds, cassette"
)
_SUMS = "requests, failures, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, seconds"


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" for _ in columns.split(","))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"


_INSERT_REQUEST = _insert("lmdeck_requests", _REQUEST_COLUMNS)
_INSERT_FAILURE = _insert("lmdeck_failures", _FAILURE_COLUMNS)
_ADD_USAGE = f"""
    INSERT INTO lmdeck_usage (day, key, model, host, {_SUMS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (day, key, model, host) DO UPDATE SET
    {", ".join(f"{name} = lmdeck_usage.{name} + excluded.{name}" for name in _SUMS.split(", "))}
"""
_ADD_PROBLEMS = """
    INSERT INTO lmdeck_problems (day, model, code, dialect, count) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (day, model, code, dialect) DO UPDATE SET count = lmdeck_problems.count + excluded.count
"""
_TRIM_FAILURES = f"""
    DELETE FROM lmdeck_failures WHERE (ended_at, id) <=
    (SELECT ended_at, id FROM lmdeck_failures ORDER BY ended_at DESC, id DESC LIMIT 1 OFFSET {MAX_FAILURES})
"""


class GatewayStore:
    """Keys, usage and failures; safe to share between threads and between processes.

    Reads run in the calling thread, writes in one writing thread: the future of `record` is done when the row is
    committed.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_days: float = KEEP_DAYS,
        clock: Callable[[], float] = time.time,
        pause: float = 0.0,
    ) -> None:
        self.label = database.label
        self._database = database
        self._errors: tuple[type[Exception], ...] = (*database.failures, StoreError)
        self._keep_seconds = keep_days * DAY
        self._clock = clock
        self._trimmed_at = -math.inf
        self._lock = threading.Lock()
        self._reader: Connection | None = database.connect()
        try:
            migrate(self._reader, database.label)
        except database.failures as error:
            self._reader.close()
            raise ConfigurationError(
                f"The store {self.label} cannot be used: {describe(str(error)).rstrip('.')}.",
                hint="Check that its file is intact and writable, or that its user may create tables in PostgreSQL.",
            ) from error
        except BaseException:
            self._reader.close()
            raise
        self._writer = WriterThread(database, pause)
        on_fork(self, GatewayStore._after_fork)

    # --- keys ---

    def add_key(self, key: Key) -> None:
        """Add a key.

        Raises:
            ConfigurationError: A key of that name is in use.
            StoreError: The store cannot be written.
        """
        self._wait(partial(_add_key, key=key))

    def revoke_key(self, name: str) -> bool:
        """Revoke the key of that name; False if no key of that name is in use.

        Raises:
            StoreError: The store cannot be written.
        """
        return self._wait(partial(_revoke_key, name=name, at=self._clock()))

    def list_keys(self) -> list[Key]:
        """Return all keys, the oldest first, revoked ones as well.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._read(f"SELECT {_KEY_COLUMNS} FROM lmdeck_keys ORDER BY created_at, digest")
        return [_key(row) for row in rows]

    # --- usage ---

    def record(self, record: UsageRecord) -> Future[None]:
        """Record a finished request; the future is done when it is committed.

        A second record with the same id changes nothing.
        """
        future: Future[None] = Future()
        self._record(record, future)
        return future

    def post(self, record: UsageRecord) -> None:
        """Record a finished request without waiting for it; a failure is logged."""
        self._record(record, None)

    def usage(
        self, by: Sequence[UsageColumn] = ("day",), *, since: str | None = None, until: str | None = None
    ) -> list[UsageRow]:
        """Return totals for each group of `by`, from day `since` to day `until`, both included.

        Days are in UTC, such as `2026-11-25`.

        Raises:
            ConfigurationError: A column of `by` is unknown.
            StoreError: The store cannot be read.
        """
        columns = _checked_columns(by)
        sums = ", ".join(f"CAST(COALESCE(SUM({name}), 0) AS DOUBLE PRECISION)" for name in _SUMS.split(", "))
        selected = "".join(f"{name}, " for name in columns)
        grouped = f"GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}" if columns else ""
        rows = self._read(
            f"SELECT {selected}{sums} FROM lmdeck_usage WHERE day >= ? AND day <= ? {grouped}",
            (since or "", until or "9999-12-31"),
        )
        return [_usage_row(columns, row) for row in rows]

    def problems(self, *, since: str | None = None, until: str | None = None) -> list[ProblemRow]:
        """Return how often each problem occurred by model, the most frequent first.

        Days are those of `usage`.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._read(
            "SELECT model, code, dialect, CAST(SUM(count) AS DOUBLE PRECISION) FROM lmdeck_problems "
            "WHERE day >= ? AND day <= ? GROUP BY model, code, dialect ORDER BY 4 DESC, model, code, dialect",
            (since or "", until or "9999-12-31"),
        )
        return [
            ProblemRow(model=model, code=code, dialect=dialect, count=int(count))
            for model, code, dialect, count in rows
        ]

    def tokens_of_day(self, day: str) -> dict[str, int]:
        """Return the tokens of each key on a day, with which budgets continue after a restart.

        Raises:
            StoreError: The store cannot be read.
        """
        return {row.group["key"]: row.tokens for row in self.usage(("key",), since=day, until=day)}

    def requests(self, *, since: float, limit: int = 1000) -> list[UsageRecord]:
        """Return the last requests that ended after `since` (seconds since 1970), the newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._read(
            f"SELECT {_REQUEST_COLUMNS} FROM lmdeck_requests WHERE ended_at >= ? ORDER BY ended_at DESC LIMIT ?",
            (since, limit),
        )
        return [_request(row) for row in rows]

    # --- failures ---

    def record_failure(self, failure: FailureRecord) -> Future[None]:
        """Record a failed request; the future is done when it is committed.

        The last 1,000 are kept.
        """
        return self._writer.submit(partial(_add_failure, failure=failure))

    def failures(self, *, limit: int = MAX_FAILURES) -> list[FailureRecord]:
        """Return the last failures, the newest first.

        Raises:
            StoreError: The store cannot be read.
        """
        rows = self._read(
            f"SELECT {_FAILURE_COLUMNS} FROM lmdeck_failures ORDER BY ended_at DESC, id DESC LIMIT ?",
            (limit,),
        )
        return [_failure(row) for row in rows]

    def failure_groups(self) -> list[FailureGroup]:
        """Return the failures grouped by kind, the most frequent first.

        Raises:
            StoreError: The store cannot be read.
        """
        groups: dict[str, list[FailureRecord]] = {}
        for failure in self.failures():
            groups.setdefault(failure.kind, []).append(failure)
        found = [FailureGroup(kind=kind, count=len(each), last=each[0]) for kind, each in groups.items()]
        return sorted(found, key=lambda group: (-group.count, group.kind))

    # --- end ---

    def close(self) -> None:
        """Write what is queued, for at most ten seconds, and close the store.

        A second call does nothing.
        """
        self._writer.close()
        with self._lock:
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._reader is not None:
            self._reader.abandon()
            self._reader = None
        self._writer.abandon()

    def _record(self, record: UsageRecord, future: Future[None] | None) -> None:
        trim_before = self._trim_before(record.at)
        if trim_before is not None:
            self._writer.submit(partial(_trim_requests, before=trim_before))
        self._writer.add_record(_add_requests, record, future)

    def _trim_before(self, now: float) -> float | None:
        """Return the time before which requests are to be removed, once an hour; None otherwise."""
        if now - self._trimmed_at < TRIM_SECONDS:
            return None
        self._trimmed_at = now
        return now - self._keep_seconds

    def _wait(self, write: Callable[[Connection], T]) -> T:
        try:
            return self._writer.submit(write).result(WRITE_SECONDS)
        except TimeoutError as error:
            raise StoreError(f"The store {self.label} could not be written within {WRITE_SECONDS:.0f} s.") from error

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run a query; after a lost connection once more, with a new one.

        Raises:
            StoreError: The store does not answer.
        """
        with self._lock:
            for attempt in (1, 2):
                try:
                    if self._reader is None:
                        self._reader = self._database.connect()
                    return self._reader.run(sql, parameters)
                except self._errors as error:
                    self._disconnect()
                    if attempt == 2 or not isinstance(error, self._database.interruptions):
                        raise StoreError(f"The store {self.label} cannot be read: {describe(str(error))}.") from error
        raise AssertionError("the second attempt returns or raises")

    def _disconnect(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(*self._database.failures):  # it may be lost already
                reader.close()


def _add_key(connection: Connection, key: Key) -> None:
    taken = connection.run("SELECT digest FROM lmdeck_keys WHERE name = ? AND revoked_at IS NULL", (key.name,))
    if taken and taken[0][0] != key.digest:
        raise ConfigurationError(
            f"A key named {key.name!r} already exists.",
            hint=f"Choose another name, or revoke the key: `lmdeck gateway keys revoke {key.name}`.",
        )
    limits = key.limits
    values = (
        key.digest, key.name, key.start, msgspec.json.encode(key.models).decode(), limits.requests_per_minute,
        limits.tokens_per_minute, limits.tokens_per_day, limits.parallel, key.created_at, key.expires_at, key.revoked_at,
    )  # fmt: skip
    marks = ", ".join("?" for _ in values)
    connection.run(
        f"INSERT INTO lmdeck_keys ({_KEY_COLUMNS}) VALUES ({marks}) ON CONFLICT (digest) DO NOTHING",
        values,
    )


def _revoke_key(connection: Connection, name: str, at: float) -> bool:
    changed = connection.change(
        "UPDATE lmdeck_keys SET revoked_at = ? WHERE name = ? AND (revoked_at IS NULL OR revoked_at = ?)",
        (at, name, at),
    )  # the same time: this very write, repeated after an interruption
    return changed > 0


def _add_requests(connection: Connection, records: list[UsageRecord]) -> None:
    """Add the rows of requests, and those that are new to the totals."""
    totals: dict[tuple[str, ...], tuple[float, ...]] = {}
    problems: Counter[tuple[str, ...]] = Counter()
    for record in records:
        group: tuple[str, ...] = (day_of(record.at), _name(record.key), _name(record.model), _name(record.host))
        if connection.change(_INSERT_REQUEST, _request_values(record, group)):
            new = _totals_of(record)
            totals[group] = tuple(map(add, totals[group], new)) if group in totals else new
            for (code, dialect), count in record.problem_kinds.items():
                problems[group[0], group[2], _text(code), _text(dialect)] += _count(count)
    for group, sums in totals.items():
        connection.run(_ADD_USAGE, (*group, *sums))
    for kind, count in problems.items():
        connection.run(_ADD_PROBLEMS, (*kind, count))


def _request_values(record: UsageRecord, group: tuple[str, ...]) -> tuple[object, ...]:
    """Return the values of `_REQUEST_COLUMNS`."""
    usage = record.usage
    return (
        _text(record.id), record.at, *group, _name(record.endpoint), record.status, _count(usage.prompt_tokens),
        _count(usage.completion_tokens), _optional(usage.cached_tokens), _optional(usage.reasoning_tokens),
        _seconds(record.queued), None if record.first_token is None else _seconds(record.first_token),
        _seconds(record.seconds), _name(record.finish_reason), _name(record.error), _count(record.problems),
        _name(record.cache),
    )  # fmt: skip


def _totals_of(record: UsageRecord) -> tuple[float, ...]:
    """Return the values of `_SUMS`."""
    counted = record.counted
    return (
        1, 1 if record.error else 0, _count(counted.prompt_tokens), _count(counted.completion_tokens),
        _count(counted.cached_tokens or 0), _count(counted.reasoning_tokens or 0), _seconds(record.seconds),
    )  # fmt: skip


def _trim_requests(connection: Connection, before: float) -> None:
    connection.run("DELETE FROM lmdeck_requests WHERE ended_at < ?", (before,))


def _add_failure(connection: Connection, failure: FailureRecord) -> None:
    is_new = connection.change(
        _INSERT_FAILURE,
        (
            _text(failure.id), failure.at, _text(failure.kind), _text(failure.message, 2 * TEXT_CHARS),
            _text(failure.hint, 2 * TEXT_CHARS), _text(failure.key), _text(failure.model), _text(failure.host),
            _text(failure.endpoint), failure.status, failure.attempts,
            None if failure.first_token is None else _seconds(failure.first_token), _seconds(failure.seconds),
            _text(failure.cassette, 2 * TEXT_CHARS),
        ),
    )  # fmt: skip
    if is_new:
        connection.run(_TRIM_FAILURES)


def _key(row: Row) -> Key:
    digest, name, start, models, per_minute, tokens_per_minute, tokens_per_day, parallel, *times = row
    return Key(
        name=name,
        digest=digest,
        start=start,
        models=msgspec.json.decode(models, type=tuple[str, ...]),
        limits=KeyLimits(
            requests_per_minute=per_minute,
            tokens_per_minute=tokens_per_minute,
            tokens_per_day=tokens_per_day,
            parallel=parallel,
        ),
        created_at=times[0],
        expires_at=times[1],
        revoked_at=times[2],
    )


def _request(row: Row) -> UsageRecord:
    id_, at, _, key, model, host, endpoint, status, prompt, completion, cached, reasoning, *rest = row
    return UsageRecord(
        id=id_,
        at=at,
        key=key,
        model=model,
        host=host,
        endpoint=endpoint,
        status=status,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cached_tokens=cached,
            reasoning_tokens=reasoning,
        ),
        **dict(
            zip(("queued", "first_token", "seconds", "finish_reason", "error", "problems", "cache"), rest, strict=True)
        ),
    )


def _failure(row: Row) -> FailureRecord:
    columns = _FAILURE_COLUMNS.replace("ended_at", "at").split(", ")
    return FailureRecord(**dict(zip(columns, row, strict=True)))


def _usage_row(columns: Sequence[UsageColumn], row: Row) -> UsageRow:
    *counts, seconds = row[len(columns) :]
    names = _SUMS.split(", ")[:-1]
    fields: dict[str, Any] = {name: int(count) for name, count in zip(names, counts, strict=True)}
    return UsageRow(group=dict(zip(columns, row, strict=False)), seconds=float(seconds), **fields)


def _checked_columns(by: Sequence[UsageColumn]) -> list[UsageColumn]:
    known = get_args(UsageColumn)
    for name in by:
        if name not in known:
            raise ConfigurationError(
                f"Usage cannot be grouped by {name!r}.", hint=f"Group by one or more of {', '.join(known)}."
            )
    return list(dict.fromkeys(by))


def _text(value: str, limit: int = TEXT_CHARS) -> str:
    """Return a text in a form that both databases accept: printable, and of bounded length."""
    return describe(value, limit)


def _name(value: str) -> str:
    """Return a text as `_text` does; short ones, which few values share, are cached."""
    return _cached_text(value) if len(value) <= TEXT_CHARS else _text(value)


_cached_text = lru_cache(maxsize=512)(_text)


def _count(value: int) -> int:
    return min(max(value, 0), LARGEST)


def _optional(value: int | None) -> int | None:
    return None if value is None else _count(value)


def _seconds(value: float) -> float:
    return min(max(value, 0.0), float(LARGEST)) if math.isfinite(value) else 0.0
