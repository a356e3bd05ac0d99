"""A run as one HTML page with plots, which needs nothing else: no script, no font, no network.

The plots are matplotlib's SVG with the text left as text. Their colors are replaced by the page's variables, so that they
follow its light or dark scheme. A contender is known by its label and its mark, never by color alone; the colors are those of
Okabe and Ito, which color-blind people can tell apart.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flames import draw, step_shares
from goals import outcomes
from report import cells_of, head_of, number, value_of
from results import Figures, Growth, Run

HERE = Path(__file__).parent
INK, FAINT, MINE, OTHER = "#000001", "#000002", "#000003", "#000004"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", MINE: "var(--mine)", OTHER: "var(--other)"}
"""Colors that no plot has by itself, and what stands in the page for them."""
WIDTH, ROW, AROUND = 3.9, 0.43, 0.62  # inches: a phone's width, the height of a row, of the axis
UNUSED_ID = re.compile(
    r' id="(?:figure|axes|patch|line2d|text|PathCollection|LineCollection|matplotlib\.axis|xtick|ytick)_\d+"'
)
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "lmdeck", "font.family": "sans-serif", "font.size": 8.5,
    "text.color": INK, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.linewidth": 0.8,
}  # fmt: skip


def drawn(height: float, label: str, draw: Callable[[Axes], None]) -> Markup:
    """Return a plot as SVG that stands in the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = UNUSED_ID.sub("", re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def compact(size: int) -> str:
    """Write a size so that it fits below an axis."""
    return f"{size // 1000}k" if size >= 1000 else str(size)


def is_mine(name: str) -> bool:
    """Whether a contender is lmdeck."""
    return "lmdeck" in name or name == "LMStudio()"


def of_figures(figures: Figures) -> Markup:
    """Return the contenders below each other on a logarithmic axis: the median as a mark, the rounds as a line."""
    rows = [(key, [value for value in rounds if value > 0]) for key, rounds in figures.rounds.items()]
    rows = sorted(((key, rounds) for key, rounds in rows if rounds), key=lambda each: median(each[1]))
    if not rows:
        return Markup()  # a quick run may measure nothing

    def draw(axes: Axes) -> None:
        least = min(min(rounds) for _, rounds in rows)
        most = max(max(rounds) for _, rounds in rows)
        axes.set_xscale("log")
        axes.set_xlim(least / 1.4, most * (most / least) ** 0.18 * 1.6)
        for place, (key, rounds) in enumerate(rows):
            color, mark = (MINE, "D") if is_mine(key) else (OTHER, "o")
            middle = median(rounds)
            ratio = figures.ratio_to(key, figures.anchors[0]) if figures.anchors else None
            shown = number(middle) + ("" if ratio is None or math.isnan(ratio) else f" · {number(ratio)}×")
            axes.plot([least / 1.4, middle], [place, place], color=FAINT, linewidth=0.8, zorder=1)
            axes.plot([min(rounds), max(rounds)], [place, place], color=color, linewidth=3, alpha=0.45, zorder=2)
            axes.plot([middle], [place], marker=mark, color=color, markersize=6, zorder=3)
            weight = "bold" if is_mine(key) else "normal"
            axes.annotate(
                key, (0, place), (0, 8), xycoords=("axes fraction", "data"), textcoords="offset points", weight=weight
            )
            axes.annotate(shown, (max(rounds), place), (7, 0), textcoords="offset points", va="center", weight=weight)
        axes.set_ylim(len(rows) - 0.6, -0.8)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(figures.unit)

    return drawn(AROUND + ROW * len(rows), f"{figures.title}, {figures.unit}", draw)


def of_growth(growth: Growth) -> Markup:
    """Return the costs by size, both logarithmic, beside a line of linear growth."""

    def draw(axes: Axes) -> None:
        for curve in growth.curves:
            costs = growth.costs(curve)
            color, mark, line = (MINE, "D", "-") if is_mine(curve) else (OTHER, "o", "--")
            axes.plot(list(costs), list(costs.values()), marker=mark, color=color, linestyle=line, markersize=5)
            if is_mine(curve):
                last, most = list(costs.items())[-1]
                axes.plot([min(costs), last], [most * min(costs) / last, most], color=FAINT, linestyle=":", zorder=1)
                axes.set_xscale("log")
                axes.set_xticks(list(costs), [compact(size) for size in costs])
        axes.set_yscale("log")
        axes.margins(x=0.08, y=0.15)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel(growth.unit)

    return drawn(2.5, f"{growth.title}, {growth.unit}", draw)


def write(run: Run, file: Path) -> None:
    """Write the page."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found = sorted(outcomes(run), key=lambda each: each.is_met)
    page = environment.get_template("report.html.jinja").render(
        run=run, outcomes=found, met=sum(each.is_met for each in found), number=number, value_of=value_of,
        head_of=head_of, cells_of=cells_of, of_figures=of_figures, of_growth=of_growth, is_mine=is_mine,
        flame_of=lambda profile: Markup(draw(profile)), step_shares=step_shares,
    )  # fmt: skip
    file.write_text(page, encoding="utf-8")
