"""A small model to be served to the command, and how the command is run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable

from lmdeck._encoders.backend_events import Finished
from lmdeck.server.jobs import EngineRuntime, Instance, ModelDescription
from lmdeck.server.text_model import Generation, Piece, TextOnly

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-c", "from lmdeck.cli import main; main()"]


class Speaker(TextOnly):
    """A model that says its pieces, with a pause before each."""

    runtime = EngineRuntime(name="test", version="1")

    def __init__(self) -> None:
        self.pieces = ["Hello", " there"]
        self.pause = 0.0
        self.jobs: list[Generation] = []
        self.left = threading.Event()

    def models(self) -> tuple[ModelDescription, ...]:
        return (
            ModelDescription(
                key="speaker-1b",
                display_name="Speaker",
                size_bytes=7_300_000_000,
                instances=(Instance(id="speaker-1b", context_length=4096),),
            ),
            ModelDescription(key="text-embedder", display_name="Embedder", type="embeddings"),
        )

    async def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        self.jobs.append(job)
        try:
            for piece in self.pieces:
                await asyncio.sleep(self.pause)
                yield piece
            yield Finished(stop_reason="eosFound", prompt_tokens=5, completion_tokens=len(self.pieces))
        finally:
            self.left.set()
