"""The goals of the benchmarks: ratios to other clients, absolute figures, and costs that grow linearly at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from results import Figures, Run

LINEAR = 1.15
"""The largest exponent of growth that is still called linear: caches and the garbage collector add a little."""


@dataclass(frozen=True)
class Goal:
    """A contender's figure, or its ratio to another one's, and the largest value allowed."""

    figures: str
    row: str
    other: str | None
    most: float


RAW, OPENAI = "sockets + msgspec", "openai-python"
GOALS = [
    *(Goal("chunk", f"lmdeck, {way}", f"{RAW}, {way}", 2.0) for way in ("sync", "async")),
    *(Goal("chunk", f"lmdeck, {way}", f"{OPENAI}, {way}", 1 / 30) for way in ("sync", "async")),
    *(Goal("tool", f"lmdeck, {way}", f"{RAW}, {way}", 2.5) for way in ("sync", "async")),
    Goal("paced", "lmdeck, async", f"{RAW}, async", 1.6),
    Goal("paced", "lmdeck, async", f"{OPENAI}, async", 1 / 6),
    Goal("request", "lmdeck, sync", "urllib3 or aiohttp + msgspec, sync", 1.6),
    Goal("request", "lmdeck, async", "urllib3 or aiohttp + msgspec, async", 2.0),
    *(Goal("request", f"lmdeck, {way}", f"{OPENAI}, {way}", 1 / 4) for way in ("sync", "async")),
    *(
        Goal("start", f"lmdeck first token, {way}", f"openai-python first token, {way}", 1 / 5)
        for way in ("sync", "async")
    ),
    Goal("open", "lmdeck", None, 22),
    Goal("long", "lmdeck, sync", None, 4),
    Goal("long", "lmdeck, async", None, 4),
    Goal("start", "lmdeck --version", None, 60),
    Goal("start", "lmdeck --help", None, 150),
    Goal("start", "lmdeck ask", None, 300),
    Goal("fake start", "lmdeck's fake", None, 120),
    Goal("fake request", "lmdeck's fake", None, 400),
    Goal("fake chunk", "lmdeck's fake", None, 12),
    Goal("engine prompt", "lmdeck's engine", None, 1.5),
    Goal("engine token", "lmdeck's engine", None, 1000 / 60),
]


@dataclass(frozen=True)
class Outcome:
    """A goal beside what was measured."""

    text: str
    value: float
    most: float
    is_ratio: bool = False

    @property
    def is_met(self) -> bool:
        return self.value <= self.most


def most(figures: Figures, row: str, anchor: str | None) -> float | None:
    """Return the largest value allowed for a contender, or for its ratio to an anchor; None if it is not a goal."""
    other = None if anchor is None else figures.key_of(row, anchor)
    wanted = (figures.name, row, other)
    return next((goal.most for goal in GOALS if (goal.figures, goal.row, goal.other) == wanted), None)


def outcomes(run: Run) -> Iterator[Outcome]:
    """Yield the goals whose contenders took part; absolute figures by their least, which other work disturbs least."""
    known = {figures.name: figures for figures in run.figures}
    for goal in GOALS:
        figures = known.get(goal.figures)
        if figures is None or goal.row not in figures.rounds:
            continue
        if goal.other is None:
            yield Outcome(f"{figures.title}: {goal.row}, {figures.unit}", min(figures.rounds[goal.row]), goal.most)
        elif goal.other in figures.rounds:
            ratio = figures.ratio(goal.row, goal.other)
            yield Outcome(f"{figures.title}: {goal.row}, to {goal.other}", ratio, goal.most, is_ratio=True)
    for growth in run.growth:
        if "lmdeck" in growth.curves:
            yield Outcome(f"{growth.title}: exponent of lmdeck", growth.exponent("lmdeck"), LINEAR)
