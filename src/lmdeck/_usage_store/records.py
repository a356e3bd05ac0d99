"""What the store holds: keys, the usage of each request, and failures."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from msgspec import Struct, field

from lmdeck.errors import APIError, LMStudioError, describe, summary
from lmdeck.stats import Usage

__all__ = [
    "FailureGroup",
    "FailureRecord",
    "Key",
    "KeyLimits",
    "ProblemRow",
    "UsageColumn",
    "UsageRecord",
    "UsageRow",
    "day_of",
]

UsageColumn: TypeAlias = Literal["day", "key", "model", "host"]
MESSAGE_CHARS = 500
_CACHED = {"hit", "shared"}


def day_of(at: float) -> str:
    """Return the day of a time in seconds since 1970, in UTC: `2026-11-25`."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


class KeyLimits(Struct, frozen=True, kw_only=True):
    """The limits of a key; None means unlimited. Days are those of UTC."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    parallel: int | None = None


class Key(Struct, frozen=True, kw_only=True):
    """A key of a user or program, without its secret.

    `digest` is the SHA-256 of the secret, in hexadecimal.

    `start` is the beginning of the key, by which people recognise it. `models` are patterns such as `qwen*`; none allows all
    models. Times are seconds since 1970.
    """

    name: str
    digest: str
    start: str
    models: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def allows(self, *names: str) -> bool:
        """Whether one of a model's names matches the key's patterns."""
        return not self.models or any(fnmatchcase(name, pattern) for name in names for pattern in self.models)

    def is_valid(self, now: float) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class UsageRecord(Struct, frozen=True, kw_only=True):
    """One finished request: who asked which model where, the tokens, and the times in seconds.

    `id` is unique and not chosen by a client: a second record of the same id is ignored. `at` is when the request ended, in
    seconds since 1970. `error` is the class of the error that ended it, or `""`; `problems` is the number of repairs,
    `problem_kinds` that of each code and dialect, which is added to totals only; `cache` is as in the header `x-lmdeck-cache`.
    """

    id: str
    at: float
    key: str = ""
    model: str = ""
    host: str = ""
    endpoint: str = ""
    status: int = 200
    usage: Usage = Usage()
    queued: float = 0.0
    first_token: float | None = None
    seconds: float = 0.0
    finish_reason: str = ""
    error: str = ""
    problems: int = 0
    problem_kinds: Mapping[tuple[str, str], int] = field(default_factory=dict)
    cache: str = ""

    @property
    def counted(self) -> Usage:
        """Tokens that count in totals and budgets; 0 if the answer came from the cache."""
        return Usage() if self.cache in _CACHED else self.usage

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens that count."""
        return self.counted.prompt_tokens + self.counted.completion_tokens


class UsageRow(Struct, frozen=True, kw_only=True):
    """Totals of usage for one group: `group` has the columns that were asked for."""

    group: Mapping[str, str]
    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


class ProblemRow(Struct, frozen=True, kw_only=True):
    """How often a problem occurred in the answers of a model.

    `code` and `dialect` are those of `lmdeck.messages.Problem`.
    """

    model: str
    code: str
    dialect: str
    count: int


class FailureRecord(Struct, frozen=True, kw_only=True):
    """One failed request: the error's class, message and hint, its place, and how long it took.

    `kind` is the name of the error's class. `cassette` is the path of a recording for `lmdeck replay`, if there is one.
    """

    id: str
    at: float
    kind: str
    message: str
    hint: str
    key: str = ""
    model: str = ""
    host: str = ""
    endpoint: str = ""
    status: int = 0
    attempts: int = 0
    first_token: float | None = None
    seconds: float = 0.0
    cassette: str = ""

    @classmethod
    def of(
        cls,
        error: LMStudioError,
        *,
        id: str = "",  # the request's
        at: float | None = None,
        key: str = "",
        model: str = "",
        host: str = "",
        endpoint: str = "",
        first_token: float | None = None,
        seconds: float = 0.0,
        cassette: str = "",
    ) -> FailureRecord:
        """Return the record of an error.

        Unless given, `at` is now and `id` is that of the error's request.
        """
        return cls(
            id=id or error.request_id or secrets.token_hex(8),
            at=time.time() if at is None else at,
            kind=type(error).__name__,
            message=describe(summary(error), MESSAGE_CHARS),
            hint=describe(error.hint, MESSAGE_CHARS),
            key=key,
            model=model,
            host=host,
            endpoint=endpoint,
            status=error.status if isinstance(error, APIError) else 0,
            attempts=error.attempts,
            first_token=first_token,
            seconds=seconds,
            cassette=cassette,
        )


class FailureGroup(Struct, frozen=True, kw_only=True):
    """Failures of one kind: their number, and details of the last one."""

    kind: str
    count: int
    last: FailureRecord
