"""What a failed request means for its batch: retry, fail the row, wait, or stop."""

from __future__ import annotations

import re
from enum import Enum, auto

from lmdeck.batch.ledger import RowError
from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ConnectionLostError,
    EmptyReplyError,
    IncompleteStreamError,
    LMStudioError,
    MalformedStreamError,
    ModelCrashedError,
    ModelLoadError,
    NoModelLoadedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
    StructuredOutputError,
    ToolCallMissingError,
    ToolCallParseError,
)

MAX_ATTEMPTS = 5
FLAWED_ATTEMPTS = 2
MAX_DELAY = 60.0
_BUDGET = re.compile(r"insufficient_quota|budget|quota_exceeded|tokens_per_day|billing", re.IGNORECASE)
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Verdict(Enum):
    """What to do after a failure."""

    RETRY = auto()  # later; it was an attempt
    GIVE_UP = auto()  # the row ends in an error
    WAIT = auto()  # the host cannot answer now; it does not count as an attempt
    STOP = auto()  # no request can succeed


_LATER = (
    ConnectionLostError, IncompleteStreamError, MalformedStreamError, ModelCrashedError, ModelLoadError,
    NoModelLoadedError, RequestTimeoutError, ServerError,
)  # fmt: skip
_FLAWED = (EmptyReplyError, StructuredOutputError, ToolCallMissingError, ToolCallParseError)


def verdict_on(error: Exception, attempts: int, most: int = MAX_ATTEMPTS) -> Verdict:
    """Return the verdict on a failure; `attempts` includes this one, `most` is the limit.

    An unusable answer is retried once only: at temperature 0, another one would be no better.
    """
    if isinstance(error, AuthenticationError) or is_budget_used(error):
        return Verdict.STOP
    if isinstance(error, ServerUnreachableError | RateLimitError):
        return Verdict.WAIT
    if isinstance(error, RequestTimeoutError) and error.phase == "connect":
        return Verdict.WAIT
    if isinstance(error, ServerError) and error.status == 503 and error.retry_after is not None:
        return Verdict.WAIT
    if isinstance(error, _LATER):
        return Verdict.RETRY if attempts < most else Verdict.GIVE_UP
    if isinstance(error, _FLAWED):
        return Verdict.RETRY if attempts < min(most, FLAWED_ATTEMPTS) else Verdict.GIVE_UP
    return Verdict.GIVE_UP


def is_budget_used(error: Exception) -> bool:
    """Whether a key's budget is used up, so that only a new day or a larger budget helps."""
    if not isinstance(error, APIError) or error.status not in {402, 403, 429}:
        return False
    return error.status == 402 or any(_BUDGET.search(word or "") for word in (error.code, error.type))


def delay_after(attempts: int, first: float) -> float:
    """Return the seconds to wait after the given number of attempts.

    They double each time, up to `MAX_DELAY`.
    """
    return float(min(first * 2 ** min(attempts - 1, 30), MAX_DELAY))


def row_error(error: Exception) -> RowError:
    """Return an error as a row stores it; its code is the server's, or the class name."""
    server_code = error.code if isinstance(error, APIError) else None
    name = type(error).__name__.removesuffix("Error")
    code = server_code if isinstance(server_code, str) and server_code else _WORD.sub("_", name).lower()
    message = str(error) if isinstance(error, LMStudioError) else f"{type(error).__name__}: {error}"
    return RowError(code=code, message=message)
