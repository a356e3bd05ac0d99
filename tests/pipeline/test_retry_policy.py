"""The retry schedule, read like a table."""

from __future__ import annotations

import pytest

from lmdeck._pipeline.retry import RetryPolicy
from lmdeck.config import Settings
from lmdeck.errors import (
    AuthenticationError,
    ConnectionLostError,
    IncompleteStreamError,
    LMStudioError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(), [0.1, 0.2]),
        (RetryPolicy(attempts=6), [0.1, 0.2, 0.4, 0.8, 1.6]),
        (RetryPolicy(attempts=4, delay=3.0), [3.0, 5.0, 5.0]),
        (RetryPolicy(attempts=1), []),
        (RetryPolicy(attempts=3, delay=0.0), [0.0, 0.0]),
    ],
)
def test_delays_grow_to_a_limit(policy: RetryPolicy, delays: list[float]) -> None:
    """Each delay is twice the one before; attempts count the first try."""
    assert list(policy.delays(lambda: 0.0)) == pytest.approx(delays)


def test_jitter_only_lengthens() -> None:
    """A delay grows by at most its jitter, so that clients do not come back together."""
    assert list(RetryPolicy(attempts=3, jitter=0.5).delays(lambda: 1.0)) == pytest.approx([0.15, 0.3])
    drawn = list(RetryPolicy(attempts=100, delay=1.0, max_delay=1.0).delays())
    assert all(1.0 <= delay <= 1.25 for delay in drawn)
    assert len(set(drawn)) > 1


def test_many_attempts_do_not_overflow() -> None:
    """A hundred is the most that a setting allows."""
    assert max(RetryPolicy(attempts=2000).delays(lambda: 0.0)) == 5.0


def test_the_settings_make_the_policy() -> None:
    """Attempts, first delay, and how long a model is waited for."""
    assert RetryPolicy.from_settings(Settings(retry_attempts=7, retry_delay=0.5, first_token_timeout=9)) == RetryPolicy(
        attempts=7, delay=0.5, loading=9
    )


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (ServerUnreachableError("x"), 0.2),
        (ConnectionLostError("x"), 0.2),
        (ServerError("x", status=503), 0.2),
        (RateLimitError("x", retry_after=5.0), 5.0),
        (RateLimitError("x", retry_after=0.0), 0.2),
        (ServerError("x", retry_after=60.0), 60.0),
        (RateLimitError("x", retry_after=61.0), None),
        (AuthenticationError("x", retry_after=1.0), None),
        (IncompleteStreamError("x"), None),
        (RequestTimeoutError("x", phase="connect", seconds=5), 0.2),
        (RequestTimeoutError("x", phase="first_token", seconds=5), None),
        (RequestTimeoutError("x", phase="idle", seconds=5), None),
        (LMStudioError("x"), None),
    ],
)
def test_the_error_decides_whether_and_how_long(error: LMStudioError, wait: float | None) -> None:
    """The server's own wish wins where it is longer, and ends it where it is too long."""
    assert RetryPolicy().wait(0.2, error) == wait
