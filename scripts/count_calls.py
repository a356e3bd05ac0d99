"""Count the calls, files and changes of file inside lmdeck that one answer costs: `python scripts/count_calls.py`.

A whole answer (`send()`) and one delta of a stream, against the fake server; the first request of a client is not counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType

import lmdeck
from lmdeck.testing import FakeLMStudio

ROOT = str(Path(lmdeck.__file__).parent)
SERVER_SIDE = ("/testing/", "/server/")


def walk(act: Callable[[], object]) -> list[str]:
    """Return the file of each Python call that `act` makes inside lmdeck, in order."""
    files: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(ROOT) and not any(part in name for part in SERVER_SIDE):
            files.append(name[len(ROOT) + 1 :])

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return files


def report(name: str, files: list[str]) -> None:
    changes = sum(one != other for one, other in pairwise(files))
    print(f"{name:>16}: {len(files):4} calls, {len(set(files)):3} files, {changes:4} changes of file")


def main() -> None:
    with FakeLMStudio() as fake, fake.client() as client:
        fake.add_model("m")
        fake.when(lambda _: True).reply("one two three four five six seven eight")
        chat = client.chat("m").user("Hi")
        chat.send()
        report("send()", walk(chat.send))
        with chat.stream() as stream:
            next(stream)
            next(stream)
            counted = [walk(lambda: next(stream)) for _ in range(3)]
            report("delta", max(counted, key=len))


if __name__ == "__main__":
    main()
