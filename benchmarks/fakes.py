"""What the fake LM Studio costs beside a plain Starlette application that gives the same answers: start, request, chunk.

Both run in processes of their own (`fake_server.py`), with the same requests of the same client.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from lmdeck import LMStudio
from results import Figures
from starts import without_first

FAKE, PLAIN = "lmdeck's fake", "Starlette + uvicorn"
WAYS = {FAKE: "fake", PLAIN: "plain"}
SERVER = Path(__file__).with_name("fake_server.py")
LONG = 200  # times five words in a long answer


class RunningServer:
    """A server in a process of its own: its address, its CPU until it was ready, and its CPU so far."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process
        url, start = self._read().split()
        self.url, self.start = url, float(start)

    @property
    def cpu(self) -> float:
        """The seconds of CPU since the process began."""
        print(file=self._process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> str:
        if self._process.stdout is None:
            raise RuntimeError("the server has no pipes")
        return self._process.stdout.readline()


@contextmanager
def served(name: str, words: int) -> Iterator[RunningServer]:
    """Run a server whose answers have five times `words` words."""
    command = [sys.executable, str(SERVER), WAYS[name], str(words)]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        yield RunningServer(process)
        if process.stdin:
            process.stdin.close()


def cost(server: RunningServer, turns: int, *, stream: bool) -> tuple[float, float]:
    """Return the microseconds of the server's CPU for an answer, and the number of its chunks."""
    with LMStudio(base_url=server.url, model="m") as client:
        chat = client.chat().user("Hi")

        def ask() -> int:
            if not stream:
                chat.send()
                return 0
            with chat.stream() as chunks:
                return sum(1 for _ in chunks)

        for _ in range(3):
            ask()
        before = server.cpu
        count = sum(ask() for _ in range(turns))
        return (server.cpu - before) / turns * 1e6, count / turns


def measured(rounds: int, requests: int, streams: int) -> list[Figures]:
    """Return the cost of a start, of a request, and of a chunk of a burst."""
    anchors = (PLAIN,)
    start = Figures("fake start", "The fake's start until it is ready", "ms of CPU of the process", anchors)
    request = Figures("fake request", "The fake's whole answers", "µs of CPU per request", anchors)
    chunk = Figures("fake chunk", "The fake's streams in bursts", "µs of CPU per chunk", anchors)
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        return []
    for _ in range(rounds):
        for name in WAYS:
            with served(name, 1) as server:
                start.rounds.setdefault(name, []).append(server.start * 1000)
                request.rounds.setdefault(name, []).append(cost(server, requests, stream=False)[0])
                short, few = cost(server, streams, stream=True)
            with served(name, LONG) as server:
                long, many = cost(server, streams, stream=True)
            chunk.rounds.setdefault(name, []).append((long - short) / (many - few))
    return [without_first(start), request, chunk]
