"""Run the benchmarks: `python benchmarks/run.py [--quick] [--json FILE] [--keep]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import growth
import memory
import starts
from measure import CONTENDERS, STREAMS, Figures, Running, measured
from report import bounds, memory_table, table
from stub import stub_server

HERE = Path(__file__).parent
PACKAGES = ("lmdeck", "msgspec", "urllib3", "aiohttp", "httpx2", "openai", "pydantic")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    chunks: int
    requests: int
    paced_rounds: int
    paced_chunks: int
    long_stream: int
    starts: int


FULL = Size(rounds=7, chunks=20_000, requests=200, paced_rounds=3, paced_chunks=50, long_stream=200_000, starts=5)
QUICK = Size(rounds=1, chunks=100, requests=3, paced_rounds=1, paced_chunks=2, long_stream=20_100, starts=0)


def say(text: str = "") -> None:
    """Write a line at once, so that a long run shows how far it has come."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def kept_file() -> Path:
    """Return where this run is kept: by its date and the commit."""
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=HERE).strip()
    return HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-{commit}.json"


def installed(port: int) -> list[Running]:
    """Make every contender whose package is there, and name those that are left out."""
    for contender in CONTENDERS:
        if not contender.is_installed:
            say(f"SKIPPED {contender.key}: {contender.needs} is not installed (`make bench` installs it).")
    return [Running(contender, port) for contender in CONTENDERS if contender.is_installed]


def long_streams(port: int, chunks: int) -> dict[str, dict[str, int]]:
    """Measure the memory of a long stream, each way in a process of its own."""
    if not memory.STATUS.exists():
        say(f"SKIPPED the memory of long streams: {memory.STATUS} is not there.")
        return {}
    command = [sys.executable, str(HERE / "memory.py")]
    return {
        way: json.loads(subprocess.check_output([*command, way, str(port), str(chunks)], text=True))
        for way in ("sync", "async")
    }


def machine() -> dict[str, str]:
    """Tell what the figures were measured with."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", **versions}


def jobs(size: Size) -> list[tuple[Figures, Callable[[Running], None], int, int, bool]]:
    """Give each job: where its figures go, what it does, its units, its rounds, and whether it is for async clients only."""
    paced = f"{STREAMS} paced streams at once, {size.paced_chunks} chunks each"
    return [
        (
            Figures(f"One stream of {size.chunks:,} chunks", "chunk"),
            lambda running: running.stream(size.chunks),
            size.chunks,
            size.rounds,
            False,
        ),
        (
            Figures(f"{size.requests} whole answers in turn", "request"),
            lambda running: running.ask(size.requests),
            size.requests,
            size.rounds,
            False,
        ),
        (
            Figures(paced, "chunk"),
            lambda running: running.stream_many(size.paced_chunks),
            STREAMS * size.paced_chunks,
            size.paced_rounds,
            True,
        ),
    ]


def main() -> int:
    """Measure, print the tables, and say which bounds were kept; 1 if one was missed by a full run."""
    parser = argparse.ArgumentParser(description="Compare lmdeck's CPU time with that of other clients.")
    parser.add_argument("--quick", action="store_true", help="a run of seconds that shows that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each round to a file")
    parser.add_argument("--keep", action="store_true", help="write them to benchmarks/results, for later comparison")
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    about = machine()
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    results: list[Figures] = []
    with stub_server() as port:
        running = installed(port)
        for figures, job, units, rounds, only_async in jobs(size):
            paced = [one for one in running if one.contender.is_async]
            taking_part = paced if only_async else [one for one in running if not one.contender.only_paced]
            results.append(measured(figures, taking_part, job, units, rounds))
            say(f"\n{table(figures)}")
        for one in running:
            one.close()
        grown = long_streams(port, size.long_stream)
        begun = starts.measured(port, size.starts)
    if grown:
        say(f"\n{memory_table(grown)}")
    say(f"\n{starts.table(begun)}")
    sizes = growth.measured(quick=options.quick)
    say(f"\n{growth.table(sizes)}")
    promises = [*bounds(results[0], results[1], grown), *growth.bounds(sizes)]
    plain = {"about": about, "jobs": [asdict(figures) for figures in results], "memory": grown}
    plain |= {"starts": begun, "growth": sizes}
    for file in [options.json] * bool(options.json) + [kept_file()] * options.keep:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(plain, indent=1) + "\n")
    if options.quick:
        say("\nA quick run shows that everything works; its figures mean nothing.")
        return 0
    say()
    for bound in promises:
        say(f"- {bound}")
    return 0 if all(bound.is_kept for bound in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
