"""Compare the ratios of a run with those of the last kept one, and warn of what became worse.

    python benchmarks/compare.py NEW.json [OLD.json]

Only ratios are compared, as absolute figures belong to a machine: lmdeck to each other client, a start to that of Python, a
growth step to its size. In GitHub's CI the warnings are annotations. The status is 0 all the same: shared machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
NOISE = 1.25  # a ratio may be so many times the kept one


def ratios(run: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the ratios of a run, each with its name; less is better."""
    for job in run["jobs"]:
        for key, rounds in job["rounds"].items():
            name, _, way = key.rpartition(", ")
            mine = job["rounds"].get(f"lmdeck, {way}")
            if mine and name != "lmdeck":
                within = median(one / other for one, other in zip(mine, rounds, strict=True))
                yield f"{job['title']}: lmdeck, {way}, to {name}", within
    starts = run.get("starts", {})
    for name, cost in starts.items():
        if name != "Python":
            yield f"start: {name}, to Python", cost / starts["Python"]
    for kind, row in run.get("growth", {}).items():
        for (small, less), (large, more) in pairwise(row.items()):
            yield f"growth: {kind} from {small} to {large}", more / less


def latest(results: Path = RESULTS) -> Path | None:
    """Return the last kept run; its name begins with its date."""
    return max(results.glob("*.json"), default=None)


def main() -> int:
    """Print the ratios beside the kept ones, and warn of those that are worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path, nargs="?", default=latest())
    given = parser.parse_args()
    if given.old is None:
        sys.stdout.write(f"No run is kept in {RESULTS}.\n")
        return 0
    kept = dict(ratios(json.loads(given.old.read_text())))
    prefix = "::warning::" if os.environ.get("GITHUB_ACTIONS") else "WARNING "
    sys.stdout.write(f"| ratio | {given.old.stem} | now | change |\n|---|---:|---:|---:|\n")
    worse = []
    for name, now in ratios(json.loads(given.new.read_text())):
        before = kept.get(name)
        if before is None:
            continue
        sys.stdout.write(f"| {name} | {before:.3g} | {now:.3g} | {now / before - 1:+.0%} |\n")
        if now > before * NOISE:
            worse.append(f"{prefix}{name}: {now:.3g}, {now / before - 1:+.0%} to the last kept run\n")
    sys.stdout.write("".join(["\n", *worse]) if worse else f"\nNothing is worse by more than {NOISE - 1:.0%}.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
