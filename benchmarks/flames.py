"""Draw where the time of an answer goes: `python benchmarks/flames.py [--seconds N]` writes docs/pictures/flame-*.svg.

The stack is sampled by CPU time while answers of the stub are read, complete ones and streamed ones, each for some seconds. The
width of a box is the share of the samples in which the function ran, itself or through those above it. A table has the lines of
lmdeck in which most of the time is spent: each sample counts for the line of lmdeck that ran, or that called what ran.
"""

from __future__ import annotations

import argparse
import linecache
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import FrameType

import lmdeck
from lmdeck import LMStudio
from stub import stub_server

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
PACKAGE = Path(lmdeck.__file__).parent
MAX_LINES = 12
Line = tuple[str, int]
INTERVAL = 0.001
WIDTH, ROW, LEAST = 1200, 18, 0.004  # pixels, pixels, share of a box that is drawn
COLORS = {"lmdeck": "#7aa6da", "urllib3": "#e0a458", "http": "#d9c27c", "socket": "#c47ac0"}
PARSING = "#8cc98c"


@dataclass
class Box:
    """A function at its place in the stack."""

    name: str
    samples: int = 0
    inner: dict[str, Box] = field(default_factory=dict)


def sampled(action: Callable[[], object], seconds: float) -> tuple[Box, Counter[Line]]:
    """Return the stacks of the samples of some seconds of CPU, and the samples of each line of lmdeck."""
    stacks: Counter[tuple[str, ...]] = Counter()
    lines: Counter[Line] = Counter()

    def take_sample(_: int, frame: FrameType | None) -> None:
        names = []
        if line := line_of(frame):
            lines[line] += 1
        while frame is not None and frame.f_code is not sampled.__code__:
            names.append(name_of(frame))
            frame = frame.f_back
        stacks[tuple(reversed(names))] += 1

    action()
    before = signal.signal(signal.SIGPROF, take_sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    until = time.process_time() + seconds
    while time.process_time() < until:
        action()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)
    root = Box("all")
    for stack, count in stacks.items():
        box = root
        box.samples += count
        for name in stack:
            box = box.inner.setdefault(name, Box(name))
            box.samples += count
    return root, lines


def line_of(frame: FrameType | None) -> Line | None:
    """Return the innermost line of lmdeck in a stack."""
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None


def line_table(lines: Counter[Line], total: int) -> str:
    """Return the lines in which most samples were taken."""
    rows = []
    for (file, number), count in lines.most_common(MAX_LINES):
        place = f"{Path(file).relative_to(PACKAGE)}:{number}"
        code = linecache.getline(file, number).strip().replace("|", "\\|")
        rows.append(f"| `{place}` | `{code}` | {count / total:.0%} |")
    return "\n".join(["| line | code | share of the CPU |", "|---|---|---:|", *rows])


def name_of(frame: FrameType) -> str:
    """Return module and function of a frame."""
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"


def boxes(box: Box, total: int, left: float = 0.0, depth: int = 0) -> Iterator[tuple[Box, float, int]]:
    """Yield each box that is wide enough, its left edge as a share, and its depth."""
    for inner in sorted(box.inner.values(), key=lambda each: -each.samples):
        share = inner.samples / total
        if share >= LEAST:
            yield inner, left, depth
            yield from boxes(inner, total, left, depth + 1)
        left += share


def color(name: str) -> str:
    """Return the color of a box by its package."""
    if name.startswith(("lmdeck._parsing", "lmdeck._streaming")):
        return PARSING
    return COLORS.get(name.partition(".")[0], "#bbbbbb")


def draw(root: Box, title: str) -> str:
    """Return the picture as SVG."""
    placed = list(boxes(root, root.samples))
    height = ROW * (max(depth for *_, depth in placed) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/><text x="4" y="13">{escape(title)}</text>',
    ]
    for box, left, depth in placed:
        share = box.samples / root.samples
        x, y, width = left * WIDTH, ROW * (depth + 1), share * WIDTH
        letters = int((width - 6) / 6.7)
        shown = box.name.removeprefix("lmdeck.")
        label = shown if len(shown) <= letters else shown.rpartition(".")[2][:letters]
        lines.append(
            f'<g><title>{escape(box.name)} {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.5):.1f}" '
            f'height="{ROW - 1}" fill="{color(box.name)}"/>'
            f'<text x="{x + 3:.1f}" y="{y + 13}">{escape(label) if letters > 2 else ""}</text></g>'
        )
    return "\n".join([*lines, "</svg>\n"])


def shares(root: Box) -> str:
    """Return the share of each package, by the function that ran itself."""
    own: Counter[str] = Counter()

    def add(box: Box) -> None:
        parts = box.name.split(".")
        own[".".join(parts[:2]) if parts[0] == "lmdeck" else parts[0]] += box.samples - sum(
            each.samples for each in box.inner.values()
        )
        for each in box.inner.values():
            add(each)

    for each in root.inner.values():
        add(each)
    rows = [
        f"| `{name}` | {count / root.samples:.0%} |" for name, count in own.most_common() if count >= root.samples / 100
    ]
    return "\n".join(["| code | share of the CPU |", "|---|---:|", *rows])


def main() -> int:
    """Sample both kinds of answers, draw them, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU time of each kind")
    options = parser.parse_args()
    with stub_server() as port, LMStudio(base_url=f"http://127.0.0.1:{port}") as client:
        whole, streamed = client.chat("whole").user("Hi"), client.chat("single-200").user("Hi")

        def read() -> None:
            with streamed.stream() as stream:
                for _ in stream:
                    """Nothing else is measured."""

        kinds = {
            "whole": ("A whole answer of 500 characters", whole.send),
            "stream": ("A stream of 200 chunks, each written alone", read),
        }
        for name, (title, action) in kinds.items():
            root, lines = sampled(action, options.seconds)
            (PICTURES / f"flame-{name}.svg").write_text(
                draw(root, f"{title}: {root.samples:,} samples"), encoding="utf-8"
            )
            sys.stdout.write(f"\n{title}\n\n{shares(root)}\n\n{line_table(lines, root.samples)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
