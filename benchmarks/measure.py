"""Measure contenders in rotation: the CPU time of this process, while the stub runs in its own."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import stub
from results import Figures

STREAMS = 64  # how many paced streams are read at once


@dataclass(frozen=True)
class Contender:
    """A client that is measured: the module that holds it, the package it needs, and whether it is awaited."""

    name: str
    module: str
    needs: str
    is_async: bool
    only_paced: bool = False  # for the paced streams only

    @property
    def key(self) -> str:
        return f"{self.name}, {'async' if self.is_async else 'sync'}"

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None


CONTENDERS = [
    Contender(name, module, needs, is_async)
    for name, module, needs in (
        ("lmdeck", "with_lmdeck", "lmdeck"),
        ("sockets + msgspec", "with_sockets", "msgspec"),
        ("urllib3 or aiohttp + msgspec", "with_library", "aiohttp"),
        ("httpx2 + msgspec", "with_httpx2", "httpx2"),
        ("openai-python", "with_openai", "openai"),
    )
    for is_async in (False, True)
]
CONTENDERS.insert(2, Contender("lmdeck, 4 at once", "with_lmdeck_queue", "lmdeck", is_async=True, only_paced=True))


class Running:
    """A contender's client, and the event loop that it keeps if it needs one."""

    def __init__(self, contender: Contender, port: int) -> None:
        self.contender = contender
        module = importlib.import_module(contender.module)
        self._runner = asyncio.Runner() if contender.is_async else None
        self._client: Any = module.Async(port) if contender.is_async else module.Sync(port)

    def stream(self, chunks: int) -> None:
        """Read one stream, as fast as it comes."""
        model = f"chunks-{chunks}"
        text = self._client.stream(model) if self._runner is None else self._runner.run(self._client.stream(model))
        self._check(text, stub.content_of(chunks))

    def stream_singly(self, chunks: int) -> None:
        """Read one stream whose chunks are written one by one, as fast as they are read."""
        self._check(self._client.stream(f"single-{chunks}"), stub.content_of(chunks))

    def ask(self, requests: int) -> None:
        """Ask for whole answers, one after the other."""
        texts = (
            [self._client.ask("whole") for _ in range(requests)]
            if self._runner is None
            else self._runner.run(self._ask_in_turn(requests))
        )
        self._check("".join(texts), stub.WHOLE * requests)

    def call(self, deltas: int) -> None:
        """Read the arguments of one tool call, as fast as they come."""
        model = f"tool-{deltas}"
        text = self._client.call(model) if self._runner is None else self._runner.run(self._client.call(model))
        self._check(text, stub.arguments_of(deltas))

    def stream_many(self, chunks: int, streams: int = STREAMS) -> None:
        """Read many paced streams at once."""
        if self._runner is None:
            raise TypeError("many streams at once are for the async clients")
        for text in self._runner.run(self._gather(f"paced-{chunks}", streams)):
            self._check(text, stub.content_of(chunks))

    def close(self) -> None:
        """Close the client and its event loop."""
        if self._runner is None:
            self._client.close()
        else:
            self._runner.run(self._client.close())
            self._runner.close()

    async def _ask_in_turn(self, requests: int) -> list[str]:
        return [await self._client.ask("whole") for _ in range(requests)]

    async def _gather(self, model: str, streams: int) -> list[str]:
        return list(await asyncio.gather(*(self._client.stream(model) for _ in range(streams))))

    def _check(self, text: str, expected: str) -> None:
        """Raise ValueError for a wrong answer: it must not count as a fast one."""
        if text != expected:
            raise ValueError(f"{self.contender.key} read {len(text)} characters instead of the {len(expected)} sent")


def measured(
    figures: Figures,
    contenders: Iterable[Running],
    job: Callable[[Running], None],
    units: int,
    rounds: int,
    before: Callable[[Running], None] | None = None,
) -> Figures:
    """Run a job with each contender in rotation; each round begins with another one, and the first one warms up.

    `before` is called before each turn and is not measured.
    """
    queue = list(contenders)
    for running in queue:
        job(running)
    for _ in range(rounds):
        for running in queue:
            if before is not None:
                before(running)
            gc.collect()
            started = time.process_time_ns()
            job(running)
            spent = time.process_time_ns() - started
            figures.rounds.setdefault(running.contender.key, []).append(spent / 1000 / units)
        queue = [*queue[1:], queue[0]]
    return figures
