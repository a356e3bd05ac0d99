"""Count the calls, files and changes of file inside lmdeck that one answer costs: `python scripts/count_calls.py`.

A whole answer (`send()`, sync and async) and one delta of a stream, against the fake server; without the first request of a
client. The event loop resumes an async `send()` from its first frame on, so some files are counted twice.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType

import lmdeck
from lmdeck.testing import FakeLMStudio

ROOT = str(Path(lmdeck.__file__).parent)
SERVER_SIDE = ("/testing/", "/server/")


@contextmanager
def walk() -> Iterator[list[str]]:
    """Yield a list that gets the file of each Python call in the block that is inside lmdeck, in order."""
    files: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOT) and not any(part in name for part in SERVER_SIDE):
            files.append(name[len(ROOT) + 1 :])

    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)


def report(name: str, files: list[str]) -> None:
    changes = sum(one != other for one, other in pairwise(files))
    print(f"{name:>16}: {len(files):4} calls, {len(set(files)):3} files, {changes:4} changes of file")


def measure_sync(fake: FakeLMStudio) -> None:
    with fake.client() as client:
        chat = client.chat("m").user("Hi")
        chat.send()
        with walk() as files:
            chat.send()
        report("send()", files)
        with chat.stream() as stream:
            next(stream)
            next(stream)
            counted = [walk_delta(stream) for _ in range(3)]
            report("delta", max(counted, key=len))


def walk_delta(stream: lmdeck.ChatStream) -> list[str]:
    with walk() as files:
        next(stream)
    return files


async def measure_async(fake: FakeLMStudio) -> None:
    async with fake.async_client() as client:
        chat = client.chat("m").user("Hi")
        await chat.send()
        with walk() as files:
            await chat.send()
        report("await send()", files)


def main() -> None:
    with FakeLMStudio() as fake:
        fake.add_model("m")
        fake.when(lambda _: True).reply("one two three four five six seven eight")
        measure_sync(fake)
        asyncio.run(measure_async(fake))


if __name__ == "__main__":
    main()
