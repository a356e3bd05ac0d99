"""What the parser costs, in seconds of CPU: whole texts of growing length, and texts in deltas of four characters.

    python benchmarks/parser.py [--beside CHECKOUT] [--rounds N] [--only growth|streams] [--quick] [--json FILE]

With `--beside`, every text is also given to the lmdeck of another checkout, in turn, so that both figures of a row come from
one run. Bounds: 64 KB at most 12.8 times, 256 KB at most 6.4 times as long as the size before, and less than a second; at most
3 µs a delta in every dialect, 1.2 for prose, 2.5 for lines and code, 4 for HTML.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from lmdeck import ConfigurationError, dialects, render

HERE = Path(__file__).resolve().parent
SIZES = (8 << 10, 64 << 10, 256 << 10)
STREAMED = 64 << 10
TOO_LONG = 2.0
"""Seconds of CPU after which a larger text of this kind is not tried."""
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "write", "description": "Write.", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}, "rows": {"type": "array"}}}}},
]  # fmt: skip
SHAPES = {
    "prose lines": "The quick brown fox jumps over the lazy dog.\n",
    "<p> lines": "<p>The quick <b>brown</b> fox jumps.</p>\n",
    "<li> lines": "<li>The quick brown fox</li>\n",
    "code": "    if value < limit and name[key](x) > 0:\n        return {'a': [1, 2], **rest}\n",
    "fences": "Run this:\n```python\nprint('hi')\n```\n",
    "blank lines": "\n",
    "one line": "The quick brown fox jumps over the lazy dog. ",
    "JSON lines": '{"name": "Ann", "age": 30, "tags": ["a", "b"]}\n',
    "table": "| name | age | city |\n",
    "q lines": "q\n",
    "bad quotes": '<tool_call>{"name": "write", "arguments": {"text": "he said "yes" and ',
    "header runs": "<|channel|>analysis to=",
}
TEXTS = {
    "prose": "The quick brown fox jumps over the lazy dog; 3 of 4 agree, says the report. ",
    "lines": "The quick brown fox jumps over the lazy dog.\n",
    "HTML": '<div class="a"><p>The <b>quick</b> brown fox.</p>\n<ul><li>one</li></ul></div>\n',
    "code": "def f(x: list[int]) -> dict[str, int]:\n    return {str(i): i for i in x if i < 3}\n\n",
    "markdown": "# Title\n\n- **one** and `two`\n- [three](https://example.org)\n\n> four\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "JSON": '{"name": "Ann", "age": 30, "tags": ["a", "b"]}\n',
}


def filled(piece: str, size: int) -> str:
    """Return a text of a size: the head of what begins a call once, then the rest of the piece again and again."""
    head, mark, again = piece.partition('"text": "')
    return head + mark + (again if mark else piece) * (size // len(again or piece))


def streamed_texts() -> Iterator[tuple[str, str, bool]]:
    """Return each text that is fed in deltas: its name, itself, and whether tools are offered."""
    for name, piece in TEXTS.items():
        yield f"{name}, no tools", filled(piece, STREAMED), False
        yield f"{name}, tools", filled(piece, STREAMED), True
    prose = filled(TEXTS["prose"], STREAMED)
    yield "reasoning", f"<think>{prose}</think>Done.", True
    for dialect in dialects():
        try:
            yield (
                dialect,
                render(dialect, calls=[{"name": "write", "arguments": {"text": prose.strip(), "rows": [1, 2]}}]),
                True,
            )
        except ConfigurationError:
            continue


class Checkout:
    """A process that measures with the lmdeck of one checkout."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(HERE / "parser_worker.py"), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self, way: str, text: str, *, tools: bool) -> float:
        """Return the seconds of CPU that a text takes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": way, "text": text, "tools": TOOLS if tools else None}) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Table:
    """Measures with one or two checkouts in turn, and prints a row for each text."""

    def __init__(self, checkouts: list[Checkout], rounds: int) -> None:
        self.checkouts = checkouts
        self.rounds = rounds
        self.rows: list[dict[str, Any]] = []

    def least(self, way: str, text: str, *, tools: bool, of: list[Checkout]) -> list[float]:
        """Return the least time of some rounds for each checkout, the checkouts taking turns."""
        least = [float("inf")] * len(of)
        for _ in range(self.rounds):
            for at, checkout in enumerate(of):
                if least[at] == float("inf") or least[at] < TOO_LONG:
                    least[at] = min(least[at], checkout.measure(way, text, tools=tools))
        return least

    def growth(self, way: str, name: str, piece: str) -> None:
        times: list[list[float]] = [[] for _ in self.checkouts]
        for size in SIZES:
            going = [
                at
                for at, known in enumerate(times)
                if len(known) == SIZES.index(size) and max(known, default=0) < TOO_LONG
            ]
            measured = self.least(way, filled(piece, size), tools=True, of=[self.checkouts[at] for at in going])
            for at, seconds in zip(going, measured, strict=True):
                times[at].append(seconds)
        self.rows.append({"table": f"growth of {way}", "name": name, "seconds": times})
        print(f"{way:6} {name:14}" + "   |".join(_grown(known) for known in times), flush=True)

    def streams(self, name: str, text: str, *, tools: bool) -> None:
        times = self.least("stream", text, tools=tools, of=self.checkouts)
        each = [seconds / (len(text) / 4) * 1e6 for seconds in times]
        self.rows.append({"table": "µs a delta", "name": name, "microseconds": each})
        print(f"{name:28}" + "".join(f"{value:10.2f}" for value in each), flush=True)


def _grown(times: list[float]) -> str:
    shown = "".join(f"{seconds * 1e3:11.2f}" for seconds in times) + f"{'—':>11}" * (len(SIZES) - len(times))
    growth = "".join(f"{b / max(a, 1e-9):7.1f}×" for a, b in pairwise(times))
    return shown + growth + f"{'—':>8}" * (len(SIZES) - max(len(times), 1))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--beside", type=Path, help="another checkout, measured in turn; its figures come first")
    options.add_argument("--rounds", type=int, default=3, help="how often each text is measured; the least time counts")
    options.add_argument("--only", choices=("growth", "streams"))
    options.add_argument("--quick", action="store_true", help="one round of the first rows, to see that it runs")
    options.add_argument("--json", type=Path, help="write the figures here")
    chosen = options.parse_args()
    folders = ([chosen.beside] if chosen.beside else []) + [HERE.parent]
    table = Table([Checkout(folder) for folder in folders], 1 if chosen.quick else chosen.rounds)
    count = 2 if chosen.quick else None
    if chosen.only != "streams":
        print("CPU in ms for 8, 64 and 256 KB, and growth" + (", before | now" if chosen.beside else ""))
        for way in ("parse", "send"):
            for name, piece in list(SHAPES.items())[:count]:
                table.growth(way, name, piece)
    if chosen.only != "growth":
        print("\nµs of CPU for a delta of 4 characters" + (", before and now" if chosen.beside else ""))
        for name, text, tools in list(streamed_texts())[:count]:
            table.streams(name, text, tools=tools)
    for checkout in table.checkouts:
        checkout.close()
    if chosen.json:
        chosen.json.write_text(json.dumps(table.rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
