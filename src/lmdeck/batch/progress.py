"""The figures of a batch while it runs, and its summary."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from lmdeck.batch.ledger import HostTotals, RowError, Totals

WINDOW_SECONDS = 30.0
State: TypeAlias = Literal["reading", "running", "writing", "finished"]


class HostProgress(Struct, frozen=True, kw_only=True):
    """One host: whether it answers, its running requests, and rows and tokens by all workers."""

    name: str
    is_up: bool = True
    running: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class BatchProgress(Struct, frozen=True, kw_only=True):
    """The progress of a batch.

    Rates are of the last half minute; `seconds_left` is None while they are unknown.

    `answered` and `failed` count rows; equal requests are answered together. `tokens_per_second` counts generated
    tokens.
    """

    state: State
    rows: int = 0
    answered: int = 0
    failed: int = 0
    running: int = 0
    rows_per_second: float = 0.0
    tokens_per_second: float = 0.0
    seconds_left: float | None = None
    hosts: Sequence[HostProgress] = ()

    @property
    def error_share(self) -> float:
        """The share of the ended rows that ended in an error, from 0 to 1."""
        ended = self.answered + self.failed
        return self.failed / ended if ended else 0.0

    def __str__(self) -> str:
        if self.state == "reading":
            return f"{self.rows:,} rows read"
        parts = [
            f"{self.answered + self.failed:,} of {self.rows:,} rows",
            f"{self.rows_per_second:.1f} rows/s",
            f"{self.tokens_per_second:.0f} tokens/s",
            f"{self.error_share:.1%} errors",
        ]
        if self.seconds_left is not None:
            parts.append(f"about {duration(self.seconds_left)} left")
        return " · ".join(parts)


class RowFigures(Struct, frozen=True, kw_only=True):
    """A row in the summary."""

    number: int
    line: int
    custom_id: str
    seconds: float | None = None
    error: RowError | None = None


class BatchSummary(Struct, frozen=True, kw_only=True):
    """The result of a batch; times are in seconds, `seconds` is that of this run only."""

    rows: int
    answered: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    hosts: Sequence[HostProgress] = ()
    slowest: Sequence[RowFigures] = ()
    failures: Sequence[RowFigures] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every row has an answer."""
        return self.answered == self.rows


class Speed:
    """Rates over the last `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def note(self, now: float, rows: int, tokens: int) -> tuple[float, float]:
        """Return the rows and tokens per second up to now."""
        self._samples.append((now, rows, tokens))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW_SECONDS:
            self._samples.popleft()
        then, rows_then, tokens_then = self._samples[0]
        seconds = now - then
        if seconds <= 0:
            return 0.0, 0.0
        return max(rows - rows_then, 0) / seconds, max(tokens - tokens_then, 0) / seconds


def running_progress(
    totals: Totals, speed: tuple[float, float], hosts: Mapping[str, tuple[bool, int]], state: State = "running"
) -> BatchProgress:
    """Return the progress of a batch.

    `hosts` maps the name of each of this worker's hosts to whether it is up, and its number of running requests.
    """
    remaining = totals.rows - totals.answered - totals.failed
    counted = {host.name: host for host in totals.hosts}
    shown = [*hosts, *(name for name in counted if name not in hosts)]
    return BatchProgress(
        state=state,
        rows=totals.rows,
        answered=totals.answered,
        failed=totals.failed,
        running=totals.leased,
        rows_per_second=speed[0],
        tokens_per_second=speed[1],
        seconds_left=0.0 if not remaining else remaining / speed[0] if speed[0] else None,
        hosts=[_host(counted.get(name) or HostTotals(name=name), *hosts.get(name, (True, 0))) for name in shown],
    )


def _host(totals: HostTotals, is_up: bool, running: int) -> HostProgress:
    return HostProgress(
        name=totals.name,
        is_up=is_up,
        running=running,
        answered=totals.answered,
        failed=totals.failed,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
    )


def duration(seconds: float) -> str:
    """Return a duration in its usual form: `4 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
