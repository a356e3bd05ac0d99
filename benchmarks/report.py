"""A run as Markdown: ratios first, then the figures; growth with its exponent; and the goals.

    python benchmarks/report.py [FILE.json]

writes a kept run, by default the last one, into the results of `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from goals import Outcome, outcomes
from results import Figures, Growth, Run, latest, read_run

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by report.py -->", "<!-- end of results -->"


def row(cells: Iterable[str]) -> str:
    """Write one line of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Write a number with three figures."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def value_of(outcome: Outcome, value: float) -> str:
    """Write the value of a goal: a small ratio as a fraction."""
    return f"1/{1 / value:.3g}" if outcome.is_ratio and 0 < value < 0.5 else number(value)


def head_of(figures: Figures) -> list[str]:
    """Return the columns of a table."""
    return ["client", *(f"to {anchor}" for anchor in figures.anchors), "median", "least to most"]


def cells_of(figures: Figures, key: str) -> list[str]:
    """Return the cells of a contender: its ratios, then its figures."""
    rounds = figures.rounds[key]
    ratios = [figures.ratio_to(key, anchor) for anchor in figures.anchors]
    span = f"{number(min(rounds))} to {number(max(rounds))}"
    return [key, *("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios), number(median(rounds)), span]


def table(figures: Figures) -> str:
    """Return one job's table; each ratio is to the contender of the same kind, sync or async."""
    head = head_of(figures)
    lines = [f"**{figures.title}** ({figures.unit})", "", row(head), row(["---", *["---:"] * (len(head) - 1)])]
    return "\n".join([*lines, *(row(cells_of(figures, key)) for key in figures.rounds)])


def growth_table(growths: Sequence[Growth]) -> str:
    """Return what grows with what, the exponent first."""
    lines = [
        "**Growth** (exponent: 1 is linear)",
        "",
        row(["by", "client", "exponent", "cost by size"]),
        "|---|---|---:|---|",
    ]
    for growth in growths:
        for curve in growth.curves:
            costs = ", ".join(f"{size:,}: {number(cost)}" for size, cost in growth.costs(curve).items())
            lines.append(row([growth.title, curve, f"{growth.exponent(curve):.2f}", f"{costs} {growth.unit}"]))
    return "\n".join(lines)


def goals_list(found: Iterable[Outcome]) -> str:
    """Return the goals as a list, those that are missed first."""
    lines = []
    for each in sorted(found, key=lambda each: each.is_met):
        word = "met" if each.is_met else "MISSED"
        lines.append(f"- {word}: {each.text}: {value_of(each, each.value)}, at most {value_of(each, each.most)}")
    return "\n".join(lines)


def markdown(run: Run) -> str:
    """Return all of a run."""
    about = ", ".join(f"{name} {value}" for name, value in run.about.items())
    parts = [about, goals_list(outcomes(run)), *map(table, run.figures), growth_table(run.growth)]
    return "\n\n".join(parts)


def main() -> None:
    """Write the run between the marks of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=latest())
    run = read_run(parser.parse_args().file)
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{markdown(run)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
