"""What a run has measured: contenders side by side, and costs that grow with a size."""

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
        way = row.rpartition(", ")[2]
        other = next((known for known in (f"{anchor}, {way}", anchor) if known in self.rounds), None)
        return None if other is None else self.ratio(row, other)


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
class Run:
    """All of a run: what it was made with, and what it measured."""

    about: dict[str, str]
    figures: list[Figures] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Write the run as JSON."""
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read_run(file: Path) -> Run:
    """Return the run that a file holds."""
    return msgspec.json.decode(file.read_bytes(), type=Run)


def latest(results: Path = RESULTS) -> Path | None:
    """Return the last kept run; its name begins with its date."""
    return max(results.glob("*.json"), default=None)
