"""Random texts under the laws, on every core: `make fuzz`.

    PYTHONPATH=tests python -m laws.fuzz [--characters N] [--minutes M] [--jobs J] [--seed S] [--state FILE]

Texts come in numbered blocks, and a seed and a number always give the same block. What is done is kept in the state file: the
same command goes on where it was interrupted or ran out of minutes. Each finding is shortened and kept with the law it breaks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from laws.examine import broken_law, random_sample, shrink

BLOCK = 100_000
"""Characters of a block."""
SHOWN = 5
"""Findings of one law in one block that are shortened; the others are only counted."""
LAWS = {
    "exception": "exceptions",
    "cuts": "differing cuts",
    "chunks": "chunks that differ from the result",
    "conservation": "texts with characters unaccounted for",
}


@dataclass
class State:
    """What was done so far, and what was found."""

    seed: int
    next_block: int = 0
    texts: int = 0
    characters: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, seed: int) -> State:
        """Return the state of an earlier run with this seed, or a new one."""
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["seed"] == seed:
                return cls(**known | {"counts": Counter(known["counts"])})
        return cls(seed)

    def add(self, block: dict[str, Any]) -> None:
        self.next_block += 1
        self.texts += block["texts"]
        self.characters += block["characters"]
        self.counts.update(block["counts"])
        self.findings += block["findings"]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self), indent=1), encoding="utf-8")


def examine_block(seed: int, number: int) -> dict[str, Any]:
    """Examine the texts of one block."""
    rng = random.Random(f"{seed}/{number}")
    texts = characters = 0
    counts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    while characters < BLOCK:
        sample = random_sample(rng)
        texts += 1
        characters += len(sample.text)
        if (found := broken_law(sample)) is not None:
            law, _ = found
            counts[law] += 1
            if counts[law] <= SHOWN:
                short = shrink(sample, law)
                _, how = broken_law(short) or found
                findings.append({"law": law, "how": how, **asdict(short)})
    return {"texts": texts, "characters": characters, "counts": counts, "findings": findings}


def run(state: State, path: Path, characters: int, seconds: float, jobs: int) -> None:
    """Examine blocks until there are enough characters or the time is over."""
    begin = last = time.monotonic()
    blocks: Iterator[int] = iter(
        range(state.next_block, state.next_block + -(-(characters - state.characters) // BLOCK))
    )
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for done in pool.imap(partial(examine_block, state.seed), blocks):
            state.add(done)
            for finding in done["findings"]:
                print(f"{finding['law']}: {finding['how']}\n    {finding}", flush=True)
            now = time.monotonic()
            if now - last > 15 or now - begin > seconds:
                last = now
                state.save(path)
                print(f"{state.characters:,} characters, {sum(state.counts.values())} findings", flush=True)
            if now - begin > seconds:
                break
        pool.terminate()
    state.save(path)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--characters", type=int, default=100_000_000, help="how many in all, earlier runs of this seed included"
    )
    options.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--state", type=Path, default=Path(".fuzz.json"), help="where the progress and the findings are kept"
    )
    chosen = options.parse_args()
    state = State.load(chosen.state, chosen.seed)
    if state.next_block:
        print(f"Going on after {state.characters:,} characters of seed {state.seed}.", flush=True)
    run(state, chosen.state, chosen.characters, chosen.minutes * 60, chosen.jobs)
    print(f"{state.characters:,} characters in {state.texts:,} texts, seed {state.seed}:")
    for law, name in LAWS.items():
        print(f"    {state.counts[law]} {name}")
    return 1 if state.counts else 0


if __name__ == "__main__":
    sys.exit(main())
