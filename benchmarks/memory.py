"""How much memory one long stream takes; run in a process of its own, so that nothing else is in the figures."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from lmdeck import AsyncLMStudio, LMStudio

STATUS = Path("/proc/self/status")
EARLY = 20_000


class Sampler:
    """Count chunks, keep none, and look at the memory early and late."""

    def __init__(self) -> None:
        self.chunks = 0
        self.early_kib = 0

    def take(self) -> None:
        self.chunks += 1
        if self.chunks == EARLY:
            self.early_kib = kib("VmRSS")

    def figures(self) -> dict[str, int]:
        return {
            "chunks": self.chunks,
            "early_kib": self.early_kib,
            "late_kib": kib("VmRSS"),
            "peak_kib": kib("VmHWM"),
        }


def kib(name: str) -> int:
    """Read one of the process's figures, in KiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def read(port: int, chunks: int) -> dict[str, int]:
    """Read a stream with the sync client."""
    sampler = Sampler()
    lm = LMStudio(host="127.0.0.1", port=port)
    with lm, lm.chat(f"chunks-{chunks}").user("Count.").stream() as stream:
        for _ in stream:
            sampler.take()
        return sampler.figures()


async def read_async(port: int, chunks: int) -> dict[str, int]:
    """Read a stream with the async client."""
    sampler = Sampler()
    lm = AsyncLMStudio(host="127.0.0.1", port=port)
    async with lm, lm.chat(f"chunks-{chunks}").user("Count.").stream() as stream:
        async for _ in stream:
            sampler.take()
        return sampler.figures()


if __name__ == "__main__":
    way, server, count = sys.argv[1:]
    result = asyncio.run(read_async(int(server), int(count))) if way == "async" else read(int(server), int(count))
    sys.stdout.write(json.dumps(result) + "\n")
