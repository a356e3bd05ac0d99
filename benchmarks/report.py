"""Figures as Markdown tables, and the bounds that lmdeck has set itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from measure import Figures

COLUMNS = ("client", "µs", "least to most", "to sockets + msgspec", "to lmdeck")


@dataclass(frozen=True)
class Bound:
    """One promise: what was measured, and what it may be at most."""

    text: str
    value: float
    most: float

    @property
    def is_kept(self) -> bool:
        return self.value <= self.most

    def __str__(self) -> str:
        word = "kept" if self.is_kept else "MISSED"
        return f"{word}: {self.text}: {self.value:.3g}, at most {self.most:.3g}"


def table(figures: Figures) -> str:
    """Give one job's table; each ratio is to the contender of the same kind, sync or async."""
    lines = [
        f"**{figures.title}** (µs of CPU per {figures.unit})",
        "",
        row(COLUMNS),
        row(["---", *["---:"] * (len(COLUMNS) - 1)]),
    ]
    for key, rounds in figures.rounds.items():
        span = f"{min(rounds):.2f} to {max(rounds):.2f}"
        others = (other_of(key, "sockets + msgspec"), other_of(key, "lmdeck"))
        ratios = [f"{figures.ratio(key, other):.2f}" if other in figures.rounds else "" for other in others]
        lines.append(row([key, f"{median(rounds):.2f}", span, *ratios]))
    return "\n".join(lines)


def row(cells: list[str] | tuple[str, ...]) -> str:
    """Write one line of a table."""
    return f"| {' | '.join(cells)} |"


def other_of(key: str, name: str) -> str:
    """Give the key of another contender of the same kind."""
    return f"{name}, {key.rpartition(', ')[2]}"


def memory_table(memory: dict[str, dict[str, int]]) -> str:
    """Give the memory of one long stream."""
    lines = [
        "**Memory of one long stream**, its chunks not kept (MiB)",
        "",
        row(["client", "chunks", "after 20,000", "at the end", "growth", "peak"]),
        row(["---", *["---:"] * 5]),
    ]
    for way, kib in memory.items():
        early, late, peak = (kib[name] / 1024 for name in ("early_kib", "late_kib", "peak_kib"))
        cells = [f"{early:.1f}", f"{late:.1f}", f"{late - early:.1f}", f"{peak:.1f}"]
        lines.append(row([f"lmdeck, {way}", f"{kib['chunks']:,}", *cells]))
    return "\n".join(lines)


def bounds(streamed: Figures, asked: Figures, memory: dict[str, dict[str, int]]) -> Iterator[Bound]:
    """Compare with what lmdeck promises, as far as the contenders were installed."""
    for way in ("sync", "async"):
        mine, sockets, openai = (f"{name}, {way}" for name in ("lmdeck", "sockets + msgspec", "openai-python"))
        yield Bound(f"{way} chunk, to sockets + msgspec", streamed.ratio(mine, sockets), 2.5)
        if openai in streamed.rounds:
            yield Bound(f"{way} chunk, to openai-python", streamed.ratio(mine, openai), 1 / 15)
            yield Bound(f"{way} request, to openai-python", asked.ratio(mine, openai), 1 / 3)
    for way, kib in memory.items():
        grown = (kib["late_kib"] - kib["early_kib"]) / 1024
        yield Bound(f"{way} memory, MiB grown between 20,000 chunks and the end", grown, 4.0)
