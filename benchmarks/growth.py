"""What grows with what: `python benchmarks/growth.py [--json FILE]`. Nothing may grow faster than its size.

CPU of one request over a handler that answers from memory, so that only lmdeck's own work is measured, by the length of the
answer, the number of tools, of messages and of handlers. Each figure is the least of some rounds. A size is four times the one
before, and may cost at most six times as much.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import stub
from lmdeck import Chat, LMStudio
from lmdeck.handlers import Call, Handler, Plan, R, ResponseStream
from report import Bound

SIZES = {"answer, characters": (2_000, 8_000, 32_000, 128_000), "tools": (4, 16, 64, 256)}
SIZES |= {"messages": (16, 64, 256, 1024), "handlers": (1, 4, 16, 64)}
MOST = 6.0
ROUNDS = 5
TOO_SHORT = 0.02  # seconds that a round takes at least


class Replayed:
    """A handler that answers every request with the same text."""

    def __init__(self, inner: Handler, text: str) -> None:
        self._body = json.dumps(
            {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": text}}], "model": "m"}
        ).encode()

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Answer without a server."""
        yield from ()
        return ResponseStream.replay(call, 200, {"content-type": "application/json"}, self._body)


class Passing:
    """A handler that does nothing."""

    def __init__(self, inner: Handler) -> None:
        self._inner = inner

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        """Run the next handler."""
        return (yield from self._inner(call))


def tool(number: int) -> dict[str, Any]:
    """Return a tool with a nested schema."""
    days = {"type": "array", "items": {"type": "object", "properties": {"day": {"type": "integer"}}}}
    properties = {"city": {"type": "string", "description": "Where"}, "days": days}
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": f"look_{number}", "parameters": parameters}}


def chat(text: str = "Well.", tools: int = 0, messages: int = 1, handlers: int = 0) -> Chat:
    """Return a chat of a client that answers from memory."""
    client = LMStudio(
        base_url="http://127.0.0.1:9", handlers=[*[Passing] * handlers, lambda inner: Replayed(inner, text)]
    )
    history = [{"role": "user" if at % 2 == 0 else "assistant", "content": stub.TEXT} for at in range(messages)]
    return client.chat("m").with_messages(history).with_tools(tool(each) for each in range(tools))


def least(act: Callable[[], object]) -> float:
    """Return the microseconds of CPU of a call, the least of the rounds."""
    act()
    count, best = 1, float("inf")
    for _ in range(ROUNDS):
        while True:
            started = time.process_time()
            for _ in range(count):
                act()
            spent = time.process_time() - started
            if spent >= TOO_SHORT:
                break
            count *= 4
        best = min(best, spent / count * 1e6)
    return best


def measured(*, quick: bool) -> dict[str, dict[int, float]]:
    """Return the cost of each size of each kind."""
    ways: dict[str, Callable[[int], Chat]] = {
        "answer, characters": lambda size: chat(text=(stub.TEXT * (size // len(stub.TEXT) + 1))[:size]),
        "tools": lambda size: chat(tools=size),
        "messages": lambda size: chat(messages=size),
        "handlers": lambda size: chat(handlers=size),
    }
    wanted = slice(2 if quick else None)
    return {kind: {size: least(way(size).send) for size in SIZES[kind][wanted]} for kind, way in ways.items()}


def steps(row: dict[int, float]) -> list[float]:
    """Return how many times the size before each size costs."""
    return [more / less for less, more in pairwise(row.values())]


def bounds(costs: dict[str, dict[int, float]]) -> Iterator[Bound]:
    """Yield the largest step of each kind."""
    for kind, row in costs.items():
        yield Bound(f"{kind}, four times the size", max(steps(row)), MOST)


def table(costs: dict[str, dict[int, float]]) -> str:
    """Return the costs as a table."""
    lines = ["**Growth** (µs of CPU of a request, by size)", "", "| what grows | by size | steps |", "|---|---|---|"]
    for kind, row in costs.items():
        shown = ", ".join(f"{size:,}: {cost:,.0f}" for size, cost in row.items())
        lines.append(f"| {kind} | {shown} | {', '.join(f'{step:.1f}' for step in steps(row))} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, and return 1 where something grows too fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    given = parser.parse_args()
    costs = measured(quick=False)
    sys.stdout.write(f"{table(costs)}\n")
    if given.json:
        given.json.write_text(json.dumps(costs, indent=1) + "\n")
    return int(not all(bound.is_kept for bound in bounds(costs)))


if __name__ == "__main__":
    raise SystemExit(main())
