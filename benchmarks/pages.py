"""What a page costs that streams an answer to the browser: CPU per chunk and memory per open stream of the site's process.

The sites (`sites.py`) are processes of their own before the stub, each with lmdeck and with openai-python; the browsers are in
this process. Every answer is compared with the text that was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import stub
from measure import STREAMS
from results import Figures
from sites import SITES

PROC = Path("/proc")
NEEDS = {"FastAPI": "fastapi", "Django": "django", "Flask": "flask", "openai-python": "openai", "lmdeck": "uvicorn"}
SERVED_BY = {"Flask": "gunicorn"}
ANCHORS = ("openai-python",)
SENT, READ = 15, 10  # chunks of an open stream; a parser may hold the last ones back
START_SECONDS = 60.0


class Site:
    """A site that runs: its CPU and its memory, with those of its worker."""

    def __init__(self, key: tuple[str, str], port: int, process: int) -> None:
        framework, client = key
        self.name = f"{client}, {framework}"
        self.port = port
        self._process = process

    @property
    def cpu(self) -> float:
        """Seconds of CPU, user and system."""
        ticks = 0
        for process in self._processes():
            fields = (PROC / process / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> float:
        """Resident memory, in KiB."""
        pages = sum(int((PROC / process / "statm").read_text().split()[1]) for process in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024

    def _processes(self) -> list[str]:
        mine = str(self._process)
        return [mine, *(PROC / mine / "task" / mine / "children").read_text().split()]


@contextlib.contextmanager
def started(key: tuple[str, str], upstream: int) -> Iterator[Site]:
    """Run a site, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = ["--port", str(port), "--upstream", f"http://127.0.0.1:{upstream}"]
    command = [sys.executable, str(Path(__file__).with_name("sites.py")), *key, *address]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            limit = time.monotonic() + START_SECONDS
            while True:
                with contextlib.suppress(OSError):
                    asyncio.run(read_page(port, "paced-2"))
                    break
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"{command} does not answer")
                time.sleep(0.05)
            yield Site(key, port, process.pid)
        finally:
            process.terminate()


async def open_page(port: int, model: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /ask?model=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % model.encode())
    return reader, writer


async def read_page(port: int, model: str) -> None:
    """Read a page to its end; raise ValueError if its text is not what was sent."""
    reader, writer = await open_page(port, model)
    text, done = [], False
    while line := await reader.readline():
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            done = done or event["type"] == "done"
            if event["type"] == "content":
                text.append(event["text"])
    writer.close()
    chunks = int(model.rpartition("-")[2])
    if not done or "".join(text) != stub.content_of(chunks):
        raise ValueError(f"a page sent {len(''.join(text))} characters, and {'an' if done else 'no'} end")


async def read_pages(port: int, chunks: int, browsers: int) -> None:
    """Read pages at once."""
    await asyncio.gather(*(read_page(port, f"paced-{chunks}") for _ in range(browsers)))


async def memory_of_open(site: Site, browsers: int) -> float:
    """Return the KiB of a stream that is open, after some chunks."""

    async def start_reading() -> asyncio.StreamWriter:
        reader, writer = await open_page(site.port, f"open-{SENT}")
        received = 0
        while received < len(stub.content_of(READ)):
            line = await reader.readline()
            if line.startswith(b"data: {"):
                received += len(json.loads(line[6:]).get("text", ""))
        return writer

    before = site.memory
    writers = await asyncio.gather(*(start_reading() for _ in range(browsers)))
    more = site.memory - before
    for writer in writers:
        writer.close()
    return more / browsers


def measured(port: int, rounds: int, chunks: int, browsers: int, *, quick: bool) -> list[Figures]:
    """Return the CPU of a chunk and the memory of an open stream, for each site whose packages are installed."""
    if not PROC.exists():
        return []
    sites = list(SITES)[: 3 if quick else None]
    chosen = [
        key
        for key in sites
        if all(importlib.util.find_spec(NEEDS[part]) and _is_served(part) for part in key)
    ]  # fmt: skip
    page = Figures("page", f"Pages, {STREAMS} browsers at once", "µs of the site's CPU per chunk", ANCHORS)
    held = Figures("page memory", f"Pages, {browsers} open streams", "KiB of the site's memory per stream", ANCHORS)
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(started(key, port)) for key in chosen]
        for site in sites:
            asyncio.run(read_pages(site.port, 2, STREAMS))
        for turn in range(rounds):
            for site in sites[turn % len(sites) :] + sites[: turn % len(sites)]:
                before = site.cpu
                asyncio.run(read_pages(site.port, chunks, STREAMS))
                page.rounds.setdefault(site.name, []).append((site.cpu - before) / chunks / STREAMS * 1e6)
        for site in sites:
            held.rounds[site.name] = [asyncio.run(memory_of_open(site, browsers))]
    return [page, held]


def _is_served(part: str) -> bool:
    return part not in SERVED_BY or importlib.util.find_spec(SERVED_BY[part]) is not None
