"""What the repair costs a user of openai-python: `python benchmarks/repair.py [--rounds N] [--chunks N] [--requests N]`.

OpenAI's client is measured with and without lmdeck's transport, in rotation, in CPU time of this process. The bounds are those
of the documentation: at most 12 µs more a chunk, and 15 % more a request.
"""

from __future__ import annotations

import argparse
from statistics import median

from measure import STREAMS, Contender, Running, measured
from results import Figures
from run import write_line
from stub import stub_server

CHUNK_BOUND, REQUEST_BOUND = 12.0, 1.15
BARE, REPAIRED = "openai-python", "openai-python + lmdeck"
PAIRS = [
    [
        Contender(BARE, "with_openai", "openai", is_async),
        Contender(REPAIRED, "with_repaired_openai", "openai", is_async),
    ]
    for is_async in (False, True)
]  # fmt: skip


def main() -> int:
    """Measure both pairs, print the table, and return 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--chunks", type=int, default=4000)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--paced-chunks", type=int, default=25, help="of each of the streams that run at once")
    options = parser.parse_args()
    write_line("| µs of CPU, median (minimum) of the rounds | as it is | with the repair | difference |")
    write_line("|---|---|---|---|")
    is_kept = True
    with stub_server() as port:
        for pair in PAIRS:
            running = [Running(contender, port) for contender in pair]
            way = "async" if pair[0].is_async else "sync"
            chunk = measured(
                Figures("chunk", f"{way}, a chunk of a stream", "µs per chunk"),
                running, lambda each: each.stream(options.chunks), options.chunks, options.rounds,
            )  # fmt: skip
            request = measured(
                Figures("request", f"{way}, a whole answer", "µs per request"),
                running, lambda each: each.ask(options.requests), options.requests, options.rounds,
            )  # fmt: skip
            is_kept = _show(chunk, pair) <= CHUNK_BOUND and is_kept
            _show(request, pair)
            is_kept = request.ratio(pair[1].key, pair[0].key) <= REQUEST_BOUND and is_kept
            if pair[0].is_async:
                many = measured(
                    Figures("paced", f"{STREAMS} paced streams at once, a chunk", "µs per chunk"),
                    running, lambda each: each.stream_many(options.paced_chunks), options.paced_chunks * STREAMS, 3,
                )  # fmt: skip
                is_kept = _show(many, pair) <= CHUNK_BOUND and is_kept
            for each in running:
                each.close()
    write_line(
        f"\nThe bounds, {CHUNK_BOUND:g} µs a chunk and {REQUEST_BOUND - 1:.0%} a request, are {'' if is_kept else 'NOT '}met."
    )
    return 0 if is_kept else 1


def _show(figures: Figures, pair: list[Contender]) -> float:
    """Print a row, and return the median of the differences within each round."""
    bare, repaired = (figures.rounds[contender.key] for contender in pair)
    more = median(mine - theirs for mine, theirs in zip(repaired, bare, strict=True))
    cells = [f"{median(rounds):.1f} ({min(rounds):.1f})" for rounds in (bare, repaired)]
    ratio = figures.ratio(pair[1].key, pair[0].key) - 1
    write_line(f"| {figures.title} | {' | '.join(cells)} | {more:+.1f} ({ratio:+.0%}) |")
    return more


if __name__ == "__main__":
    raise SystemExit(main())
