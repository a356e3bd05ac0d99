"""The conversation in a real terminal: a pty, keys and the screen."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest
from cli_tools import COMMAND, Speaker

from loopback import PATIENCE

ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\^_=>])")


class Terminal:
    """A terminal with the command in it; `screen` is what it shows, `seen` every character that it got."""

    def __init__(self, arguments: list[str], environment: dict[str, str], columns: int = 100, lines: int = 40) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
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


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal(["chat"], environment)
    with contextlib.closing(opened):
        opened.wait_for("/help for commands")
        yield opened


def test_a_conversation(terminal: Terminal, speaker: Speaker, tmp_path: Path) -> None:
    """Two questions, the second with the first in its history; then saved, and left."""
    terminal.type("First question\r")
    terminal.wait_for("speaker-1b · 2 tokens")
    terminal.forget()
    terminal.type("Second question\r")
    terminal.wait_for("speaker-1b · 2 tokens")
    assert [turn.text for turn in speaker.jobs[-1].prompt] == ["First question", "Hello there", "Second question"]
    saved = tmp_path / "talk.json"
    terminal.type(f"/save {saved}\r")
    terminal.wait_for("Saved 4 messages")
    assert [message["role"] for message in json.loads(saved.read_text())] == ["user", "assistant"] * 2
    terminal.type("/quit\r")
    assert terminal.process.wait(PATIENCE) == 0


def test_ctrl_c_stops_the_answer_and_keeps_it(terminal: Terminal, speaker: Speaker) -> None:
    """The model is stopped at once, the part that came stays in the history, and the conversation goes on."""
    speaker.pieces, speaker.pause = ["word "] * 1000, 0.02
    terminal.type("Talk for long\r")
    terminal.wait_for("word word")
    terminal.type("\x03")
    terminal.wait_for("(stopped)")
    assert speaker.left.wait(PATIENCE)
    speaker.pieces, speaker.pause = ["Fine"], 0
    terminal.forget()
    terminal.type("And now?\r")
    terminal.wait_for("speaker-1b · 1 tokens")
    asked, kept, now = (turn.text for turn in speaker.jobs[-1].prompt)
    assert asked == "Talk for long"
    assert kept.startswith("word word")
    assert now == "And now?"
    terminal.type("/quit\r")
    assert terminal.process.wait(PATIENCE) == 0


def test_commands_and_errors_leave_the_conversation_open(terminal: Terminal, speaker: Speaker) -> None:
    """A wrong command and a wrong model are a line each; the system message is sent from then on."""
    terminal.type("/nonsense\r")
    terminal.wait_for("Unknown command /nonsense")
    terminal.type("/model unknown\r")
    terminal.wait_for("model: unknown")
    terminal.type("Hello?\r")
    terminal.wait_for("→")
    terminal.type("/model speaker-1b\r")
    terminal.wait_for("model: speaker-1b")
    terminal.type("/system Be kind.\r")
    terminal.wait_for("system: Be kind.")
    terminal.forget()
    terminal.type("Hello!\r")
    terminal.wait_for("speaker-1b · 2 tokens")
    assert [turn.text for turn in speaker.jobs[-1].prompt] == ["Be kind.", "Hello!"]
