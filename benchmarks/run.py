"""Run all benchmarks, and write a report.

    python benchmarks/run.py [--quick | --rounds N] [--only NAME …] [--json FILE] [--html FILE] [--keep]

Each job is measured in rounds in which the contenders take turns. A full run takes 10 to 15 minutes on two quiet cores, and
half of that with `--rounds 3`, whose report is as complete, but noisier.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import engines
import fakes
import flames
import growth
import memory
import pages
import starts
from goals import outcomes
from measure import CONTENDERS, STREAMS, Running, measured
from report import goals_table, growth_table, table, write_documents
from results import RESULTS, Figures, Growth, Profile, Run
from stub import allow_sockets, stub_server

HERE = Path(__file__).parent
PACKAGES = ("lmdeck", "msgspec", "urllib3", "aiohttp", "httpx2", "openai", "pydantic", "django", "fastapi", "flask")
Result = Iterable[Figures | Growth | Profile]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    chunks: int
    requests: int
    deltas: int
    few_rounds: int
    paced_chunks: int
    open_streams: int
    long_stream: int
    fake_requests: int
    fake_streams: int
    browsers: int
    growth_chunks: int
    profile_seconds: float

    def with_rounds(self, rounds: int) -> Size:
        """Return the size with fewer or more rounds; the long jobs have half of them."""
        return replace(self, rounds=rounds, few_rounds=max(1, rounds // 2))


FULL = Size(
    rounds=7, chunks=20_000, requests=200, deltas=5_000, few_rounds=3, paced_chunks=50, open_streams=1000,
    long_stream=200_000, fake_requests=300, fake_streams=5, browsers=100, growth_chunks=20,
    profile_seconds=5.0,
)  # fmt: skip
QUICK = Size(
    rounds=1, chunks=100, requests=3, deltas=20, few_rounds=1, paced_chunks=2, open_streams=60,
    long_stream=20_100, fake_requests=3, fake_streams=1, browsers=4, growth_chunks=2,
    profile_seconds=0.05,
)  # fmt: skip


def write_line(text: str = "") -> None:
    """Write a line without buffering, so that a long run shows its progress."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def about() -> dict[str, str]:
    """Return what the figures were measured with."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else "unknown",
        **versions,
    }


def commit() -> str:
    """Return the commit that is measured."""
    try:
        return subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True, cwd=HERE).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def kept_file() -> Path:
    """Return the file in which this run is kept, named by its date, time and commit."""
    return RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M}-{commit()}.json"


def left_out() -> Iterator[str]:
    """Yield what cannot be measured here, and why."""
    for contender in CONTENDERS:
        if not contender.is_installed:
            yield f"{contender.key}: {contender.needs} is not installed"
    for name in ("uvicorn", "typer", "django", "fastapi", "flask", "gunicorn"):
        if importlib.util.find_spec(name) is None:
            yield f"the jobs with {name}: it is not installed"
    if reason := engines.why_not():
        yield f"the engine: {reason}"
    if not memory.STATUS.exists():
        yield f"memory and the CPU of pages: {memory.STATUS} does not exist"


def jobs(size: Size, port: int, running: list[Running], *, quick: bool) -> dict[str, Callable[[], Result]]:
    """Return each job by its name, in the order in which they run."""
    by_key = {one.contender.key: one for one in running}
    everyone = [one for one in running if not one.contender.only_paced]
    paced = [one for one in running if one.contender.is_async]
    apart = [one for one in everyone if one.contender.is_async]

    def client(name: str, title: str, unit: str, act: Callable[[Running], None], units: int) -> Callable[[], Result]:
        figures = Figures(name, title, f"µs of CPU per {unit}")
        return lambda: [measured(figures, everyone, act, units, size.rounds)]

    def paced_streams() -> Result:
        figures = Figures("paced", f"{STREAMS} streams at once, 100 chunks a second each", "µs of CPU per chunk")
        units = STREAMS * size.paced_chunks
        # During the others' turns lmdeck closes its idle connections, as LM Studio would; the stub lets others keep theirs.
        return [
            measured(
                figures,
                paced,
                lambda one: one.stream_many(size.paced_chunks),
                units,
                size.few_rounds,
                before=lambda one: one.stream_many(1),
            )
        ]

    def grown(kind: str) -> Callable[[], Result]:
        if kind in growth.REQUESTS:
            return lambda: [growth.of_requests(kind, size.few_rounds, quick=quick)]
        beside = [one for one in apart if one.contender.key in growth.BESIDE]
        return lambda: [growth.of_streams(kind, beside, size.few_rounds, chunks=size.growth_chunks, quick=quick)]

    return {
        "chunk": client("chunk", "One stream", "chunk", lambda one: one.stream(size.chunks), size.chunks),
        "tool": client("tool", "One tool call", "delta", lambda one: one.call(size.deltas), size.deltas),
        "request": client("request", "Whole answers", "request", lambda one: one.ask(size.requests), size.requests),
        "paced": paced_streams,
        "memory": lambda: memory.measured(
            port, [one.contender for one in apart], size.few_rounds, size.open_streams, size.long_stream
        ),
        "starts": lambda: [starts.measured(port, size.rounds)],
        "fake": lambda: fakes.measured(size.few_rounds, size.fake_requests, size.fake_streams),
        "flames": lambda: flames.measured(
            by_key["lmdeck, sync"], by_key["lmdeck, async"], size.profile_seconds, size.paced_chunks
        ),
        "engine": lambda: [] if quick else engines.measured(size.few_rounds),
        "pages": lambda: pages.measured(port, size.few_rounds, size.paced_chunks, size.browsers, quick=quick),
        **{f"growth: {kind}": grown(kind) for kind in growth.SIZES},
    }


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Compile modules only once, as if they were installed, even where Python writes no byte code."""
    if not sys.dont_write_bytecode:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder})
        yield


def measure(size: Size, only: list[str], *, quick: bool) -> Run:
    """Run the jobs, and show the progress."""
    run = Run(about())
    with compiled_once(), stub_server() as port, contextlib.ExitStack() as stack:
        running = [Running(contender, port) for contender in CONTENDERS if contender.is_installed]
        for one in running:
            stack.callback(one.close)
        chosen = {
            name: job
            for name, job in jobs(size, port, running, quick=quick).items()
            if not only or any(name.startswith(part) for part in only)
        }
        for at, (name, job) in enumerate(chosen.items(), 1):
            began = time.monotonic()
            write_line(f"\n[{at} of {len(chosen)}] {name} …")
            for result in job():
                if isinstance(result, Growth):
                    run.growth.append(result)
                elif isinstance(result, Profile):
                    run.profiles.append(result)
                elif result.rounds:
                    run.figures.append(result)
                    write_line(f"\n{table(result)}\n")
            write_line(f"{time.monotonic() - began:.0f} s")
    return run


def main() -> int:
    """Measure, print the tables, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a run of seconds, to check that everything works")
    parser.add_argument(
        "--rounds", type=int, default=FULL.rounds, metavar="N", help="rounds of each job; %(default)s by default"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="run the jobs whose names begin with one of these"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of each round to a file")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report with plots to a file")
    parser.add_argument(
        "--keep", action="store_true", help="write the figures to benchmarks/results, and into the documents"
    )
    options = parser.parse_args()
    if options.keep and (options.quick or options.only):
        parser.error("--keep is for a whole run: the documents have all of its figures")
    allow_sockets(20_000)
    size = QUICK if options.quick else FULL.with_rounds(max(1, options.rounds))
    run = measure(size, options.only, quick=options.quick)
    if run.growth:
        write_line(f"\n{growth_table(run.growth)}")
    write_line("\n" + ", ".join(f"{name} {value}" for name, value in run.about.items()))
    for reason in left_out():
        write_line(f"SKIPPED {reason} (`make bench` installs what is needed).")
    kept = kept_file()
    for file in [options.json] * bool(options.json) + [kept] * options.keep:
        run.write(file)
    if options.html:
        from html_report import write

        write(run, options.html)
        write_line(f"\nThe report: {options.html}")
    if options.quick:
        write_line("\nA quick run shows that everything works; its figures mean nothing.")
        return 0
    found = list(outcomes(run))
    write_line(f"\n{goals_table(found)}")
    if options.keep:
        changed = [kept, *write_documents(run)]
        write_line("\nWritten, to be committed: " + " ".join(str(file.relative_to(HERE.parent)) for file in changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
