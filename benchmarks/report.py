"""A run as Markdown: ratios first, each beside its goal, then the figures; growth with its exponent; and where the time goes.

    python benchmarks/report.py [FILE.json] [--check]

writes a kept run, by default the last one, into the documents: between their marks in `benchmarks/README.md` and
`docs/performance.md`, and the flame graphs into `docs/pictures`. With `--check` nothing is written, and the status is 1 if a
document has other figures than the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from flames import draw, step_shares
from goals import Outcome, most, outcomes
from results import Figures, Growth, Profile, Run, latest, read_run

ROOT = Path(__file__).parents[1]
README = ROOT / "benchmarks" / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"
STARTS = {
    "import lmdeck": "`import lmdeck`",
    "import msgspec": "`import msgspec`",
    "import urllib3": "`import urllib3`",
    "import asyncio": "`import asyncio`",
    "import aiohttp": "`import aiohttp`, with asyncio",
    "LMStudio()": "`LMStudio()`",
    "lmdeck first token, sync": "first token, sync",
    "lmdeck first token, async": "first token, async",
    "urllib3 + msgspec first bytes": "first bytes with urllib3 and msgspec",
    "aiohttp + msgspec first bytes": "first bytes with aiohttp and msgspec",
    "openai-python first token, sync": "first token of openai-python, sync",
    "openai-python first token, async": "first token of openai-python, async",
    "lmdeck --version": "`lmdeck --version`",
    "lmdeck --help": "`lmdeck --help`",
    "lmdeck ask": "`lmdeck ask`, the answer printed",
}


def row(cells: Iterable[str]) -> str:
    """Write one line of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Write a number with three figures."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def fraction(value: float) -> str:
    """Write a ratio: a small one as a fraction."""
    return f"1/{1 / value:.3g}" if 0 < value < 0.5 else f"{value:.2f}"


def value_of(outcome: Outcome, value: float) -> str:
    """Write the value of a goal."""
    return fraction(value) if outcome.is_ratio else number(value)


def head_of(figures: Figures) -> list[str]:
    """Return the columns of a table."""
    return ["client", *(f"to {anchor}" for anchor in figures.anchors), "median", "least to most"]


def cells_of(figures: Figures, key: str) -> list[str]:
    """Return the cells of a contender: its ratios, then its figures, each beside its goal if it has one."""
    rounds = figures.rounds[key]
    ratios = []
    for anchor in figures.anchors:
        ratio = figures.ratio_to(key, anchor)
        shown = "–" if ratio is None else fraction(ratio)
        ratios.append(shown if ratio is None else beside_goal(shown, ratio, most(figures, key, anchor), fraction))
    span = beside_goal(f"{number(min(rounds))} to {number(max(rounds))}", min(rounds), most(figures, key, None), number)
    return [key, *ratios, number(median(rounds)), span]


def beside_goal(shown: str, value: float, allowed: float | None, write: Callable[[float], str]) -> str:
    """Add the goal of a figure, if it has one."""
    if allowed is None:
        return shown
    return f"{shown} ({'✓' if value <= allowed else '✗'} ≤ {write(allowed)})"


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


def goals_table(found: Iterable[Outcome]) -> str:
    """Return the goals, those that are missed first."""
    lines = [row(["goal", "measured", "at most", ""]), row(["---", "---:", "---:", "---"])]
    for each in sorted(found, key=lambda each: each.is_met):
        word = "met" if each.is_met else "**missed**"
        lines.append(row([each.text, value_of(each, each.value), value_of(each, each.most), word]))
    return "\n".join(lines)


def about_line(run: Run) -> str:
    """Return what a run was made with."""
    return ", ".join(f"{name} {value}" for name, value in run.about.items())


def results(run: Run) -> str:
    """Return all figures of a run."""
    return "\n\n".join(
        [about_line(run), goals_table(outcomes(run)), *map(table, run.figures), growth_table(run.growth)]
    )


def starts_table(run: Run) -> str | None:
    """Return the starts as multiples of Python's own."""
    figures = next((each for each in run.figures if each.name == "start"), None)
    if figures is None:
        return None
    lines = [row(["process", "CPU time as a multiple of that of `python -c pass`"]), row(["---", "---:"])]
    for key, label in STARTS.items():
        if key in figures.rounds:
            lines.append(row([label, f"{figures.ratio(key, 'Python'):.2g}"]))
    return "\n".join(lines)


def profile_tables(run: Run, name: str) -> str | None:
    """Return the steps of one kind of answer, and the lines that cost the most."""
    profile = next((each for each in run.profiles if each.name == name), None)
    if profile is None:
        return None
    shares = [row([step, f"{share:.0%}"]) for step, share in step_shares(profile).items()]
    lines = [
        row(
            [
                f"`{line.place}`",
                f"`{line.code.replace('|', chr(92) + '|')}`",
                f"{line.samples / profile.root.samples:.0%}",
            ]
        )
        for line in profile.lines
    ]
    return "\n".join(
        ["| step | share |", "|---|---:|", *shares, "", "| line | code | share of the CPU |", "|---|---|---:|", *lines]
    )


def measured_with(run: Run) -> str:
    """Return the sentence about the origin of the figures."""
    about = run.about
    return (
        f"The figures are of one run: {about['date']}, commit {about['commit']}, Python {about['Python']}, {about['system']}, "
        f"load {about['load']}."
    )


BLOCKS: dict[Path, dict[str, Callable[[Run], str | None]]] = {
    README: {"results": results},
    PERFORMANCE: {
        "whole": lambda run: profile_tables(run, "whole"),
        "stream": lambda run: profile_tables(run, "stream"),
        "paced": lambda run: profile_tables(run, "paced"),
        "starts": starts_table,
        "origin": measured_with,
    },
}


def with_figures(text: str, blocks: dict[str, Callable[[Run], str | None]], run: Run) -> str:
    """Return a document with the figures of a run between its marks; what was not measured stays.

    Raises:
        ValueError: The document does not have the marks of a block.
    """
    for name, write in blocks.items():
        begin, end = f"<!-- {name}: written by benchmarks/report.py -->\n", f"\n<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"there must be one {begin.strip()} and one {end.strip()}")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if (block := write(run)) is not None:
            text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


def documents(run: Run) -> Iterator[tuple[Path, str]]:
    """Yield each file that has figures of a run, and its text."""
    for file, blocks in BLOCKS.items():
        yield file, with_figures(file.read_text(encoding="utf-8"), blocks, run)
    for profile in run.profiles:
        yield picture_of(profile), draw(profile)


def picture_of(profile: Profile) -> Path:
    """Return the file of a flame graph."""
    return PICTURES / f"flame-{profile.name}.svg"


def write_documents(run: Run) -> list[Path]:
    """Write the figures of a run into the documents, and return those that changed."""
    changed = [(file, text) for file, text in documents(run) if not file.exists() or file.read_text("utf-8") != text]
    for file, text in changed:
        file.write_text(text, encoding="utf-8")
    return [file for file, _ in changed]


def main() -> int:
    """Write a run into the documents, or check that they have its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=latest())
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a document has other figures")
    options = parser.parse_args()
    run = read_run(options.file)
    if not options.check:
        write_documents(run)
        return 0
    older = [file for file, text in documents(run) if not file.exists() or file.read_text("utf-8") != text]
    for file in older:
        sys.stderr.write(
            f"{file.relative_to(ROOT)} does not have the figures of {options.file.name}: run benchmarks/report.py.\n"
        )
    return 1 if older else 0


if __name__ == "__main__":
    sys.exit(main())
