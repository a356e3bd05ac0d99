"""What a run has measured: contenders side by side, costs that grow with a size, and where the time goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, nan
from pathlib import Path
from statistics import linear_regression, median

import msgspec

RESULTS = Path(__file__).parent / "results"
CLIENTS = ("sockets + msgspec", "urllib3 or aiohttp + msgspec", "openai-python")
"""What lmdeck's client is compared with."""


@dataclass
class Figures:
    """What one job cost: one figure a round for each contender, named `client` or `client, way` (`lmdeck, async`).

    `anchors` name the contenders that the others are compared with, the most important first.
    """

    name: str
    title: str
    unit: str
    anchors: tuple[str, ...] = CLIENTS
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, row: str, other: str) -> float:
        """Return the median of the ratios within each round, which noise of the machine moves least; NaN if the other is 0."""
        rounds = zip(self.rounds[row], self.rounds[other], strict=True)
        return median([mine / theirs for mine, theirs in rounds if theirs] or [nan])

    def ratio_to(self, row: str, anchor: str) -> float | None:
        """Return the ratio to an anchor of the same way, or to the only one; None if it was not measured."""
        other = self.key_of(row, anchor)
        return None if other is None else self.ratio(row, other)

    def key_of(self, row: str, anchor: str) -> str | None:
        """Return the name of the anchor that a contender is compared with: of the same way, or the only one."""
        way = row.rpartition(", ")[2]
        return next((known for known in (f"{anchor}, {way}", anchor) if known in self.rounds), None)


@dataclass
class Growth:
    """What a job cost by its size, for each contender: one figure a round."""

    name: str
    title: str
    unit: str
    curves: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def costs(self, curve: str) -> dict[int, float]:
        """Return the least cost of each size: other work of the machine only adds to it."""
        return {size: min(rounds) for size, rounds in self.curves[curve].items()}

    def exponent(self, curve: str) -> float:
        """Return the exponent of the size that the larger half of the sizes fits best: 1 is linear, 2 quadratic."""
        costs = list(self.costs(curve).items())
        larger = costs[-max(2, (len(costs) + 1) // 2) :]
        return linear_regression([log(size) for size, _ in larger], [log(cost) for _, cost in larger]).slope


@dataclass
class Box:
    """A function at its place in the stack: the samples in which it ran, itself or through those above it."""

    name: str
    samples: int = 0
    inner: dict[str, Box] = field(default_factory=dict)


@dataclass
class Line:
    """A line of lmdeck, with the samples in which it ran or called code outside of lmdeck."""

    place: str
    code: str
    samples: int


@dataclass
class Profile:
    """Where the CPU time of one kind of answer goes.

    `root` is the stack without small boxes, `packages` the samples of each package by the function that ran itself.
    """

    name: str
    title: str
    root: Box
    packages: dict[str, int]
    lines: list[Line]


@dataclass
class Run:
    """All of a run: what it was made with, and what it measured."""

    about: dict[str, str]
    figures: list[Figures] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write the run as JSON."""
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read_run(file: Path) -> Run:
    """Return the run that a file holds."""
    return msgspec.json.decode(file.read_bytes(), type=Run)


def latest(results: Path = RESULTS) -> Path | None:
    """Return the last kept run; its name begins with its date and time."""
    return max(results.glob("*.json"), default=None)
