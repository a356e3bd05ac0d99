"""Nothing that a server, a model or a file says is obeyed by the terminal, whichever command shows it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from cli_tools import COMMAND, Run
from rich.console import Console

from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece, save
from lmdeck.cli.live_rendering import SafeMarkdown
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from terminals import Terminal

EVIL = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x90\u202e\u2066\u200f\u2028[bold]{x}[/nope]\x7f"
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def hostile(folder: Path) -> str:
    body = {
        "choices": [
            {
                "message": {
                    "content": EVIL,
                    "reasoning_content": EVIL,
                    "tool_calls": [{"id": "1", "function": {"name": EVIL, "arguments": json.dumps({EVIL: EVIL})}}],
                },
                "finish_reason": "stop",
            }
        ],
        "model": EVIL,
    }
    good = {"headers": {"content-type": "application/json"}, "pieces": [RecordedPiece(at=0.0, text=json.dumps(body))]}
    error = [RecordedPiece(at=0.0, text=json.dumps({"error": EVIL}))]
    save(
        [
            RecordedExchange(method=f"POST{EVIL}", path=f"/v1/chat/completions{EVIL}", status=200, **good),
            RecordedExchange(
                method="POST", path="/v1/chat/completions", request={"tools": 5, "model": EVIL}, status=200, **good
            ),
            RecordedExchange(method="POST", path="/v1/responses", request={"tools": "x"}, status=400, pieces=error),
        ],
        folder / "evil.jsonl",
    )
    return str(folder / "evil.jsonl")


def test_replay_shows_a_hostile_recording_harmlessly(run: Run, tmp_path: Path) -> None:
    done = run("replay", hostile(tmp_path))
    assert "[bold]{x}[/nope]" in done.stdout
    assert not OBEYED.search(done.stdout.replace("\n", "") + done.stderr.replace("\n", ""))


def test_json_is_escaped_and_still_the_same_value(run: Run, tmp_path: Path) -> None:
    done = run("replay", hostile(tmp_path), "--json")
    assert not OBEYED.search(done.stdout.replace("\n", ""))
    rows = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert rows[0]["request"] == f"POST{EVIL} /v1/chat/completions{EVIL}"
    assert rows[1]["reply"]["model"] == EVIL


def test_no_command_prints_the_text_of_a_server_unescaped(run: Run) -> None:
    with FakeLMStudio(cuts=False) as fake:
        fake.add_model(EVIL)
        fake.reply(EVIL, reasoning=EVIL).repeat()
        there = {"LMDECK_BASE_URL": fake.base_url}
        for command in (
            ("ask", "Hi", "--json"),
            ("ask", "Hi", "--stats"),
            ("models", "--json"),
            ("models",),
            ("ps", "--json"),
            ("ps",),
            ("doctor", "--json"),
            ("doctor",),
            (),
        ):
            done = run(*command, **there)
            assert "Traceback" not in done.stderr, command
            assert not OBEYED.search((done.stdout + done.stderr).replace("\n", "")), command


@pytest.mark.parametrize("argument", ["[/x]{0.a}", "a{b}c[link=x://y]z"])
@pytest.mark.parametrize("command", [("models", "load"), ("models", "get")])
def test_markup_in_arguments_is_text_in_a_terminal(
    environment: dict[str, str], command: tuple[str, ...], argument: str
) -> None:
    terminal = Terminal([*COMMAND, *command, argument], environment)
    terminal.wait_for("→")
    code = terminal.process.wait(PATIENCE * 4)
    seen = terminal.seen
    terminal.close()
    assert code in {1, 2}
    assert "Traceback" not in seen
    assert "Error:" not in seen


LINKS = """
[good](https://a.example/x) [plain](http://b.example) [a](vscode://x) [b](javascript:1) [c](file:///etc/passwd)
<ssh://host> ![picture](smb://host/share) [d](HTTPS://c.example) [e](tel:1) &#x202e;&#x200f;&#27;]52;c;x&#7; `&#x9b;`
"""


def test_links_lead_to_web_pages_only_and_entities_bring_no_controls() -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=400).print(SafeMarkdown(LINKS))
    links = re.findall(r"\x1b\]8;[^;]*;([^\x1b\x07]+)\x1b\\", out.getvalue())
    assert sorted(set(links)) == ["HTTPS://c.example", "http://b.example", "https://a.example/x"]
    rest = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[\d;]*m", "", out.getvalue())
    assert "picture" in rest
    assert not OBEYED.search(rest.replace("\n", ""))


def test_a_scenario_nested_without_end_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("a = " + "[" * 5000 + "]" * 5000)
    done = run("fake", str(tmp_path / "s.toml"), "--port", "0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_incomplete_recording_is_shown_with_a_warning(run: Run, tmp_path: Path) -> None:
    whole = hostile(tmp_path)
    with Path(whole).open("ab") as file:
        file.write(b'{"method":"POST","path":"/v1/ch')
    done = run("replay", whole)
    assert done.returncode == 1
    assert "Line 4" in done.stderr
    assert "skipped" in done.stderr
