"""The conversation in a real terminal: a pty, keys and the screen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import COMMAND, Speaker

from loopback import PATIENCE
from terminals import Terminal


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    opened = Terminal([*COMMAND, "chat"], environment)
    with contextlib.closing(opened):
        opened.wait_for("/help for commands")
        yield opened


def test_a_conversation(terminal: Terminal, speaker: Speaker, tmp_path: Path) -> None:
    """The second question is sent with the first in its history, and the conversation is saved at the end."""
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
