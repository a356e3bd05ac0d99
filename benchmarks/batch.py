"""What a batch costs beside its requests: `python benchmarks/batch.py [--rows 1000000] [--concurrency 16]`.

The host is in this process and answers at once, so only the batch's own CPU time is measured: reading the input, the ledger,
the workers, the output. It ends with status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lmdeck.batch import BatchJob, WorkerLimits
from lmdeck.batch.batch_hosts import HostAnswer, HostState, tokens_of
from lmdeck.batch.ledger import Lease

MICROSECONDS, MEGABYTES, LEDGER_BYTES = 500, 300, 1024  # per row, in total, per row beyond its answer
CONTENT = "The answer to this question has about a hundred characters, as many answers of evaluations have. "
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": CONTENT}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 24, "total_tokens": 36},
}  # fmt: skip


class InstantHost:
    """A host that sends the same answer to every request at once."""

    name = "instant"
    body = json.dumps(ANSWER).encode()

    async def ask(self, lease: Lease) -> HostAnswer:
        await asyncio.sleep(0)
        return HostAnswer(body=self.body, request_id=f"req_{lease.id}", **tokens_of(self.body))

    async def look_up(self) -> HostState:
        return HostState(models=frozenset(["m"]))

    async def aclose(self) -> None:
        return


def lines(rows: int) -> Iterator[str]:
    for number in range(rows):
        body = {"model": "m", "messages": [{"role": "user", "content": f"Question number {number}?"}]}
        yield (
            json.dumps({"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "in.jsonl").open("w") as file:
            file.writelines(lines(options.rows))
        limits = WorkerLimits(max_concurrency=options.concurrency)
        job = BatchJob(folder / "in.jsonl", folder / "out.jsonl", lambda: [InstantHost()], limits=limits)
        begun, elapsed = time.process_time(), time.monotonic()
        summary = job.run()
        cpu = (time.process_time() - begun) / options.rows * 1e6
        elapsed = time.monotonic() - elapsed
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        ledger = (folder / "out.jsonl.ledger").stat().st_size / options.rows - len(InstantHost.body)
    print(f"{summary.answered:,} of {summary.rows:,} rows in {elapsed:.0f} s")
    print(
        f"{cpu:.0f} µs of CPU a row (bound {MICROSECONDS}), {memory:.0f} MiB resident at the peak (bound {MEGABYTES}), "
    )
    print(f"{ledger:.0f} bytes of ledger a row beyond the answers (bound {LEDGER_BYTES})")
    is_within = cpu <= MICROSECONDS and memory <= MEGABYTES and ledger <= LEDGER_BYTES and summary.is_complete
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
