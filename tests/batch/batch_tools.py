"""Batches for tests: rows with repeats, a fake that answers each with its own text, and processes that run `lmdeck batch`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmdeck.testing import FakeLMStudio
from lmdeck.testing.fake_models import DEFAULT_MODEL

COMMAND = [sys.executable, "-c", "from lmdeck.cli import main; main()"]
CONCURRENCY = 4


def chat_row(number: int, text: str, **body: Any) -> dict[str, Any]:
    """Return a line of OpenAI's Batch API."""
    asked = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def texts(count: int) -> list[str]:
    """Return one text per row, of which 30 % are repeats."""
    return [f"question {number if number % 10 < 7 else number - 7}" for number in range(count)]


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines; text stands as it is."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_batch(path: Path, count: int) -> Path:
    """Write chat rows of `texts`."""
    return write_lines(path, [chat_row(number, text) for number, text in enumerate(texts(count))])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an output."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def answering_fake(**options: Any) -> FakeLMStudio:
    """Return a fake that answers every chat with `answer to TEXT`."""
    fake = FakeLMStudio(cuts=False, **options)
    fake.when(lambda _: True).respond(lambda request: f"answer to {request.last_user}")
    return fake


def asked(*fakes: FakeLMStudio) -> Counter[str]:
    """Return how often each text was asked."""
    return Counter(request.last_user for fake in fakes for request in fake.requests if request.wants_answer)


def assert_answered_in_order(out: Path, count: int) -> None:
    """Every row stands in the output exactly once, in the input's order, with its own answer."""
    lines = read_lines(out)
    assert [line["custom_id"] for line in lines] == [f"row {number}" for number in range(count)]
    contents = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
    assert contents == [f"answer to {text}" for text in texts(count)]
    assert all(line["error"] is None for line in lines)


class BatchProcess:
    """A process of `lmdeck batch`."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LMDECK_")}
        self._process = subprocess.Popen(
            [*COMMAND, "batch", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, "LMDECK_RETRY_DELAY": "0.01", "COLUMNS": "100", **environment},
        )

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Return the result when it ends."""
        try:
            out, err = self._process.communicate(timeout=240)
        finally:
            self._process.kill()
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, out, err)

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it with -9."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


class Milestones:
    """Wait until fakes have received a number of requests; the one of the number `hold_at` is held until an event."""

    def __init__(self, *fakes: FakeLMStudio, hold_at: int = 0, until: threading.Event | None = None) -> None:
        self._count = 0
        self._hold_at, self._until = hold_at, until
        self._changed = threading.Condition()
        for fake in fakes:
            fake.on_request(self._note)

    def _note(self, request: Any) -> None:
        with self._changed:
            self._count += request.wants_answer
            self._changed.notify_all()
        if self._until is not None and self._count == self._hold_at:
            self._until.wait(60)

    @property
    def count(self) -> int:
        """The number of requests for an answer."""
        return self._count

    def wait_for(self, count: int, process: BatchProcess) -> None:
        """Return when that many requests for an answer were received, or the process has ended."""
        with self._changed:
            while self._count < count and process._process.poll() is None:
                self._changed.wait(0.05)

    def wait_until(self, condition: Callable[[], bool], process: BatchProcess) -> None:
        """Return when a condition holds, or the process has ended."""
        with self._changed:
            while not condition() and process._process.poll() is None:
                self._changed.wait(0.05)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Make a folder a disk of that size, a tmpfs or a limit on the size of files, and yield a function that gives it room."""
    import resource  # not on Windows

    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_mounted = (
        os.geteuid() == 0 and mount and not subprocess.run(command, capture_output=True, check=False).returncode
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not is_mounted:
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))

    def make_room() -> None:
        if is_mounted:
            subprocess.run([command[0], "-o", "remount,size=64m", str(folder)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        yield make_room
    finally:
        if is_mounted:
            subprocess.run(["umount", folder], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
