"""A real terminal for tests: a pty with a command in it, keys and the screen."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import time

import pyte
import pytest

from loopback import PATIENCE

__all__ = ["ESCAPES", "Terminal"]

# What imports this module is skipped on Windows.
fcntl, pty, termios = (
    pytest.importorskip(name, reason="NO TERMINAL TESTS: Windows has no pty") for name in ("fcntl", "pty", "termios")
)

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\^_=>])")


class Terminal:
    """A terminal with the command in it; `screen` is what it shows, `seen` every character that it got."""

    def __init__(self, command: list[str], environment: dict[str, str], columns: int = 100, lines: int = 40) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            env={**environment, "TERM": "xterm", "LINES": str(lines), "COLUMNS": str(columns)},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(other)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def wait_for(self, words: str, seconds: float = PATIENCE) -> None:
        """Read until the words are on the screen."""
        end = time.monotonic() + seconds
        while words not in ESCAPES.sub("", self.seen):
            left = end - time.monotonic()
            assert left > 0, f"{words!r} did not come; the screen: {ESCAPES.sub('', self.seen)[-800:]!r}"
            if select.select([self._main], [], [], min(left, 0.2))[0]:
                data = os.read(self._main, 65536).decode(errors="replace")
                self._stream.feed(data)
                if "\x1b[6n" in data:  # prompt_toolkit asks where the cursor is
                    self.type(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
                self.seen += data

    @property
    def rows(self) -> list[str]:
        """The rows that show something."""
        return [row.rstrip() for row in self.screen.display if row.strip()]

    def forget(self) -> None:
        self.seen = ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # tests that a shell started in the background inherit that it is ignored
