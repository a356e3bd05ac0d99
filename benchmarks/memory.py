"""Memory of streams: a thousand open ones, and a long one; each in a process of its own.

    python benchmarks/memory.py open MODULE PORT STREAMS | long MODULE PORT CHUNKS

is started by `measured`, and prints one figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from measure import Contender
from results import CLIENTS, Figures
from stub import allow_sockets

STATUS = Path("/proc/self/status")
SENT, READ = 15, 10  # chunks of an open stream; a parser may hold the last ones back
AT_ONCE = 50  # streams that are opened together; the first ones warm up
EARLY = 20_000


def resident() -> float:
    """Return the memory of this process, in KiB."""
    gc.collect()
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return float(line.split()[1])


async def open_streams(module: str, port: int, streams: int) -> float:
    """Return the KiB of each of many streams that are open at once, after some chunks of each."""
    client = importlib.import_module(module).Async(port)

    async def opened() -> AsyncGenerator[str, None]:
        contents: AsyncGenerator[str, None] = client.contents(f"open-{SENT}")
        for _ in range(READ):
            await anext(contents)
        return contents

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)

        async def open_all(count: int) -> None:
            for contents in await asyncio.gather(*(opened() for _ in range(count))):
                stack.push_async_callback(contents.aclose)

        await open_all(AT_ONCE)
        before = resident()
        for done in range(AT_ONCE, streams, AT_ONCE):
            await open_all(min(AT_ONCE, streams - done))
        return (resident() - before) / (streams - AT_ONCE)


async def long_stream(way: str, port: int, chunks: int) -> float:
    """Return the MiB by which one long stream grows, none of its chunks kept."""
    contender = importlib.import_module("with_lmdeck")
    client: Any = contender.Async(port) if way == "async" else contender.Sync(port)
    count, early = 0, 0.0

    def take() -> None:
        nonlocal count, early
        count += 1
        if count == EARLY:
            early = resident()

    if way == "async":
        async for _ in client.contents(f"chunks-{chunks}"):
            take()
    else:
        for _ in client.contents(f"chunks-{chunks}"):
            take()
    return (resident() - early) / 1024


def run(what: str, which: str, port: int, count: int) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, what, which, str(port), str(count)]
    return float(subprocess.check_output(command, text=True))


def measured(port: int, contenders: list[Contender], rounds: int, streams: int, chunks: int) -> list[Figures]:
    """Return the memory of open streams of each async client, and the growth of lmdeck's long streams."""
    if not STATUS.exists():
        return []
    opened = Figures("open", f"{streams:,} open streams", "KiB of memory per stream", CLIENTS)
    for _ in range(rounds):
        for one in contenders:
            opened.rounds.setdefault(one.name, []).append(run("open", one.module, port, streams))
    grown = Figures("long", f"One stream of {chunks:,} chunks, none kept", "MiB grown after the first 20,000", ())
    for way in ("sync", "async"):
        grown.rounds[f"lmdeck, {way}"] = [run("long", way, port, chunks)]
    return [opened, grown]


if __name__ == "__main__":
    what, which, server, count = sys.argv[1:]
    allow_sockets(int(count) * 2 + 1000)
    job = open_streams if what == "open" else long_stream
    print(asyncio.run(job(which, int(server), int(count))))
