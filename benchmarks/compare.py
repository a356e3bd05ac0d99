"""Compare the ratios of a run with those of the last kept one, and warn of those that became worse.

    python benchmarks/compare.py NEW.json [OLD.json]

Only ratios are compared, as absolute figures belong to a machine: each figure of lmdeck to those of the other contenders, and
the exponents of growth. In GitHub's CI the warnings are annotations. The status is always 0, because shared machines are noisy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from results import RESULTS, Run, latest, read_run

NOISE = 1.25  # the largest ratio of new to kept that is still called noise


def ratios(run: Run) -> Iterator[tuple[str, float]]:
    """Yield the ratios of a run, each with its name; less is better."""
    for figures in run.figures:
        for key in figures.rounds:
            for anchor in figures.anchors:
                ratio = figures.ratio_to(key, anchor)
                if ratio is not None and not key.startswith(figures.anchors):
                    yield f"{figures.title}: {key}, to {anchor}", ratio
    for growth in run.growth:
        for curve in growth.curves:
            yield f"{growth.title}: exponent of {curve}", growth.exponent(curve)


def main() -> int:
    """Print the ratios beside the kept ones, and warn of those that are worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path, nargs="?", default=latest())
    options = parser.parse_args()
    if options.old is None:
        sys.stdout.write(f"{RESULTS} has no kept run to compare with.\n")
        return 0
    kept = dict(ratios(read_run(options.old)))
    prefix = "::warning::" if os.environ.get("GITHUB_ACTIONS") else "WARNING "
    sys.stdout.write(f"| ratio | {options.old.stem} | now | change |\n|---|---:|---:|---:|\n")
    worse = []
    for name, now in ratios(read_run(options.new)):
        before = kept.get(name)
        if before is None or before <= 0:
            continue
        sys.stdout.write(f"| {name} | {before:.3g} | {now:.3g} | {now / before - 1:+.0%} |\n")
        if now > before * NOISE:
            worse.append(f"{prefix}{name}: {now:.3g}, {now / before - 1:+.0%} to the last kept run\n")
    sys.stdout.write("".join(["\n", *worse]) if worse else f"\nNothing is worse by more than {NOISE - 1:.0%}.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
