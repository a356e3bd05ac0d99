"""Two charts of token usage: tokens per day, and speed by model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from django.db.models import Avg, Count, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone
from msgspec import Struct

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from lmdeck.contrib.django.history.models import Usage

DAYS, MODELS = 30, 8
WIDTH, HEIGHT, GAP = 720.0, 160.0, 0.2
ROW = 26.0


class Bar(Struct, frozen=True):
    """A rectangle in the coordinates of the chart; `title` describes its value."""

    x: str
    y: str
    width: str
    height: str
    kind: str
    title: str


class Label(Struct, frozen=True):
    """A text beside the bars."""

    x: str
    y: str
    text: str


class Chart(Struct, frozen=True, kw_only=True):
    """A chart of `width` by `height`; `summary` is its text alternative."""

    title: str
    summary: str
    width: int
    height: int
    bars: Sequence[Bar]
    labels: Sequence[Label]


def tokens_by_day(usage: QuerySet[Usage], today: date | None = None) -> Chart:
    """Return a chart of the tokens per day in the last 30 days.

    Prompt tokens are below, completion tokens above.
    """
    last = today or timezone.localdate()
    days = [last - timedelta(days=back) for back in reversed(range(DAYS))]
    rows = (
        usage.filter(created__date__gte=days[0], created__date__lte=last)
        .annotate(day=TruncDate("created"))
        .values("day")
        .annotate(prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"))
        .order_by("day")
    )
    sums = {row["day"]: (row["prompt"] or 0, row["completion"] or 0) for row in rows}
    most = max((sum(counts) for counts in sums.values()), default=0)
    step = WIDTH / DAYS
    bars: list[Bar] = []
    for at, day in enumerate(days):
        bottom = HEIGHT
        for kind, count in zip(("prompt", "completion"), sums.get(day, (0, 0)), strict=True):
            if count:
                tall = HEIGHT * count / most
                bottom -= tall
                title = f"{day.isoformat()}: {count} {kind} tokens"
                bars.append(_bar(at * step, bottom, step * (1 - GAP), tall, kind, title))
    total = sum(sum(counts) for counts in sums.values())
    ends = ((0, days[0]), (len(days) // 2, days[len(days) // 2]), (len(days) - 3, days[-1]))
    return Chart(
        title=f"Tokens per day, last {DAYS} days",
        summary=f"{total} tokens in {DAYS} days; at most {most} on one day.",
        width=int(WIDTH),
        height=int(HEIGHT) + 24,
        bars=bars,
        labels=[_label(at * step, HEIGHT + 18, f"{day:%d %b}") for at, day in ends],
    )


def speed_by_model(usage: QuerySet[Usage]) -> Chart:
    """Return a chart of the average tokens per second of the most used models."""
    rows = list(
        usage.filter(tokens_per_second__gt=0)
        .values("model")
        .annotate(speed=Avg("tokens_per_second"), answers=Count("pk"))
        .order_by("-answers", "model")[:MODELS]
    )
    most = max((row["speed"] for row in rows), default=1.0)
    bars, labels = [], []
    for at, row in enumerate(rows):
        text = f"{row['model'] or '?'}: {row['speed']:.1f} tokens/s, {row['answers']} answers"
        bars.append(_bar(0, at * 2 * ROW + ROW, WIDTH * row["speed"] / most, ROW * 0.7, "speed", text))
        labels.append(_label(0, at * 2 * ROW + ROW - 6, text))
    return Chart(
        title="Speed by model",
        summary="; ".join(label.text for label in labels) or "No answers yet.",
        width=int(WIDTH),
        height=int(max(1, len(rows)) * 2 * ROW),
        bars=bars,
        labels=labels,
    )


def _bar(x: float, y: float, width: float, height: float, kind: str, title: str) -> Bar:
    return Bar(f"{x:.1f}", f"{y:.1f}", f"{max(width, 1):.1f}", f"{max(height, 1):.1f}", kind, title)


def _label(x: float, y: float, text: str) -> Label:
    return Label(f"{x:.1f}", f"{y:.1f}", text)
