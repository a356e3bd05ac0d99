"""Charts as SVG.

Series differ in shape and label as well as in colour, so that everybody can tell them apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from html import escape

from lmdeck.gateway.request_history import Bucket

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 190, 62, 30, 12
CLOCKS = {"hour": "%H:%M", "day": "%H:%M", "month": "%d %b"}


def bar_chart(
    title: str,
    buckets: Sequence[Bucket],
    name: str,
    range_name: str,
    *,
    part: str = "",
    total: Callable[[Sequence[float]], float] = sum,
) -> str:
    """Return a bar chart of one figure of the buckets, and its `total`.

    The share `part` of each bar is hatched.
    """
    values = [float(getattr(bucket, name)) for bucket in buckets]
    parts = [float(getattr(bucket, part)) for bucket in buckets] if part else []
    top = _round_up(max([*values, 1.0]))
    step = (WIDTH - LEFT) / max(len(values), 1)
    bars = [
        _bar(at, value, top, step, kind)
        for kind, series in (("bar", values), ("bar part", parts))
        for at, value in enumerate(series)
        if value > 0
    ]
    shown = _figure(total(values))
    hatched = f", hatched: {_figure(sum(parts))} {part}" if part else ""
    summary = f"{title}: {shown} in this {range_name}{hatched}"
    return (
        f"<figure><figcaption>{escape(title)} <small>{escape(shown + hatched)}</small></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(summary)}">'
        f"{_axes(top, buckets, range_name)}{''.join(bars)}</svg></figure>"
    )


def _bar(at: int, value: float, top: float, step: float, kind: str) -> str:
    height = max(1.0, (HEIGHT - BOTTOM - TOP) * value / top)
    x, y = LEFT + at * step, HEIGHT - BOTTOM - height
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(step - 1, 1):.1f}" height="{height:.1f}"/>'


def _axes(top: float, buckets: Sequence[Bucket], range_name: str) -> str:
    base = HEIGHT - BOTTOM
    lines = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>' for y in (TOP, (base + TOP) // 2, base)]
    marks = [(TOP + 8, top), ((base + TOP) // 2 + 7, top / 2), (base, 0.0)]
    lines += [f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{_figure(value)}</text>' for y, value in marks]
    if buckets:
        ends = ((LEFT, buckets[0].at, "start"), (WIDTH, buckets[-1].at, "end"))
        lines += [
            f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(_clock(at, range_name))}</text>'
            for x, at, anchor in ends
        ]
    return "".join(lines)


def _clock(at: float, range_name: str) -> str:
    return time.strftime(CLOCKS[range_name], time.localtime(at))


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 and so on."""
    scale = 1.0
    while scale * 10 <= value:
        scale *= 10
    return next(step * scale for step in (1, 2, 5, 10) if step * scale >= value)


def _figure(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{round(value, 2):.3g}"
