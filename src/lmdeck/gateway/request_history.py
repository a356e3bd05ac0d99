"""The gateway's record of ended requests: sums over time, and the last failures."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from lmdeck._usage_store import UsageRecord
from lmdeck.errors import summary
from lmdeck.gateway.admission import RequestOutcome

__all__ = ["LONGEST", "RANGES", "Bucket", "RequestHistory"]

RANGES = {"hour": (60, 60), "day": (900, 96), "month": (21_600, 120)}
"""The seconds of a bucket, and the number of buckets, by the name of the range."""
LONGEST = max(seconds * count for seconds, count in RANGES.values())
SHOWN_ERRORS = 50


class Bucket(Struct, kw_only=True):
    """Sums over the requests that ended in a span of time.

    The span starts at `at`, in seconds since 1970.
    """

    at: float
    requests: int = 0
    errors: int = 0
    tokens: int = 0
    problems: int = 0
    hits: int = 0
    longest_queue: float = 0.0

    def add(self, other: Bucket) -> None:
        """Add the figures of another bucket."""
        self.requests += other.requests
        self.errors += other.errors
        self.tokens += other.tokens
        self.problems += other.problems
        self.hits += other.hits
        self.longest_queue = max(self.longest_queue, other.longest_queue)


class RequestHistory:
    """Sums over ended requests in rings of buckets, totals since the start, the last failures."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rings: dict[str, deque[Bucket]] = {name: deque(maxlen=count) for name, (_, count) in RANGES.items()}
        self.totals = Bucket(at=clock())
        self.errors: deque[dict[str, Any]] = deque(maxlen=SHOWN_ERRORS)
        self._problems: Counter[tuple[str, str]] = Counter()
        self._broken: Counter[str] = Counter()

    def note(self, outcome: RequestOutcome) -> None:
        """Count a request that has ended."""
        now = self._clock()
        is_hit = outcome.cache in {"hit", "shared"}
        counted = Bucket(
            at=now,
            requests=1,
            errors=int(bool(outcome.error)),
            tokens=0 if is_hit else outcome.completion_tokens,
            problems=outcome.problems.total(),
            hits=int(is_hit),
            longest_queue=outcome.queue_seconds,
        )
        self.totals.add(counted)
        self._count(counted)
        self._problems.update(outcome.problems)
        if outcome.is_broken:
            self._broken[outcome.error] += 1
        if outcome.error:
            self._note_error(outcome, now)

    def load(self, records: Iterable[UsageRecord]) -> None:
        """Count requests that ended before the start of the gateway, the oldest first."""
        for record in records:
            is_hit = record.cache in {"hit", "shared"}
            self._count(
                Bucket(
                    at=record.at,
                    requests=1,
                    errors=int(bool(record.error)),
                    tokens=record.counted.completion_tokens,
                    problems=record.problems,
                    hits=int(is_hit),
                    longest_queue=record.queued,
                )
            )

    def series(self, name: str) -> list[Bucket]:
        """Return the buckets of a range, the oldest first; empty ones where there was no request."""
        seconds, count = RANGES[name]
        newest = self._clock() // seconds * seconds
        known = {bucket.at: bucket for bucket in self._rings[name]}
        times = [newest - seconds * back for back in reversed(range(count))]
        return [known.get(at) or Bucket(at=at) for at in times]

    def status(self) -> dict[str, Any]:
        """Return the record for `/gateway/status`.

        It has totals, problems of answers, broken answers by class of error, and failures.
        """
        problems = [
            {"code": code, "dialect": dialect, "count": count}
            for (code, dialect), count in self._problems.most_common()
        ]
        return {
            "totals": asdict(self.totals),
            "problems": problems,
            "broken": dict(self._broken.most_common()),
            "errors": list(self.errors),
        }

    def _count(self, counted: Bucket) -> None:
        for name, ring in self._rings.items():
            seconds = RANGES[name][0]
            at = counted.at // seconds * seconds
            if not ring or ring[-1].at < at:
                ring.append(Bucket(at=at))
            ring[-1].add(counted)

    def _note_error(self, outcome: RequestOutcome, now: float) -> None:
        failure = outcome.failure
        self.errors.appendleft(
            {
                "at": now,
                "request_id": outcome.request_id,
                "error": outcome.error,
                "message": "" if failure is None else summary(failure),
                "hint": "" if failure is None else failure.hint,
                "model": outcome.model,
                "host": outcome.host,
                "key": outcome.key,
                "seconds": round(outcome.seconds, 3),
            }
        )
