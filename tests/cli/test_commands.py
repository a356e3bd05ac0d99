"""The commands, run as a user runs them, against a served model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_tools import COMMAND, Run, Speaker

import lmdeck
import lmdeck.cli
from lmdeck.cli.commands import COMMANDS

NOWHERE = {"LMDECK_BASE_URL": "http://127.0.0.1:1"}


def test_without_a_command_it_shows_the_status_of_the_server(run: Run, server: str) -> None:
    """`lmdeck` names the server, what is loaded, and the next commands."""
    done = run()
    assert done.returncode == 0
    assert server in done.stdout
    assert "speaker-1b" in done.stdout
    assert "lmdeck chat" in done.stdout


def test_without_a_command_and_a_server_it_shows_what_to_do(run: Run) -> None:
    """A missing server is no traceback, but a hint and the demo."""
    done = run(**NOWHERE)
    assert "nothing answers at http://127.0.0.1:1" in done.stdout
    assert "lms server start" in done.stdout
    assert "lmdeck demo" in done.stdout
    assert not done.stderr


def test_version(start: Run) -> None:
    """`--version` is the package's."""
    assert start("--version").stdout == f"lmdeck {lmdeck.__version__}\n"


def test_ask_prints_the_answer_alone(run: Run) -> None:
    """In a pipe there is the answer and nothing else."""
    done = run("ask", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there\n", "")


def test_ask_adds_what_is_piped_in(run: Run, speaker: Speaker) -> None:
    """The question comes first, the text of the pipe below it."""
    run("ask", "Sum this up:", "--system", "Be brief.", stdin="a long text\n")
    system, user = speaker.jobs[-1].prompt
    assert isinstance(system, object)
    assert "Be brief." in system.text
    assert user.text == "Sum this up:\n\na long text"


def test_ask_sends_the_options(run: Run, speaker: Speaker) -> None:
    """What is asked for on the command line reaches the model."""
    run("ask", "Hi", "--max-tokens", "7", "--temperature", "0.5", "--model", "speaker-1b")
    assert (speaker.jobs[-1].sampling.max_tokens, speaker.jobs[-1].sampling.temperature) == (7, 0.5)


def test_ask_prints_json(run: Run) -> None:
    """`--json` is the reply's own form, with stats and problems."""
    reply = json.loads(run("ask", "Hi", "--json").stdout)
    assert reply["content"] == {"message": "Hello there", "action": None, "actions": []}
    assert reply["model"] == "speaker-1b"
    assert reply["usage"]["completion_tokens"] == 2
    assert reply["stats"]["measured"]["total_time"] > 0


def test_ask_prints_the_speed(run: Run) -> None:
    """`--stats` goes to standard error, where it does not mix with the answer."""
    done = run("ask", "Hi", "--stats", "--no-stream")
    assert done.stdout == "Hello there\n"
    assert "speaker-1b · 2 tokens" in done.stderr


def test_a_model_cannot_write_to_the_terminal(run: Run, speaker: Speaker) -> None:
    """Escape sequences in an answer lose what makes a terminal obey them."""
    speaker.pieces = ["a\x1b[2Jb", "\x07c\u202ed\te\n"]
    assert run("ask", "Hi").stdout == "a[2Jbcd\te\n\n"


def test_ask_without_a_question(run: Run) -> None:
    """No question and no pipe is wrong input, said in two lines."""
    done = run("ask")
    assert done.returncode == 2
    assert "question is empty" in done.stderr
    assert 'lmdeck ask "' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ask", "Hi", "--model", "unknown"], 1, "unknown"),
        (["ask", "Hi", "--image", "missing.png"], 2, "missing.png"),
        (["ask", "Hi", "--image", "http://127.0.0.1:1/cat.png"], 1, "not on the public internet"),
        (["ask", "Hi", "--base-url", "ftp://x"], 2, "the option --base-url"),
        (["--port", "abc", "models"], 2, "--port"),
        (["ask", "Hi", "--max-tokens", "0"], 2, "--max-tokens"),
        (["frobnicate"], 2, "frobnicate"),
        (["engine", "serve", "--model", "missing.gguf", "--port", "0"], 1, "missing.gguf"),
        (["engine", "serve", "--host", "256.1.1.1"], 2, "256.1.1.1"),
    ],
)
def test_wrong_input_is_one_line_and_a_hint(run: Run, arguments: list[str], code: int, words: str) -> None:
    """Every error is a readable line that names what is wrong, a hint below it, and no traceback."""
    done = run(*arguments, LMDECK_CACHE_DIR="/nonexistent") if arguments[0] == "engine" else run(*arguments)
    line, hint = done.stderr.strip().splitlines()[-2:]
    assert done.returncode == code
    assert line.startswith("✗ ")
    assert words in line
    assert hint.startswith("  → ")
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(start: Run) -> None:
    """With `--debug` the traceback stands above the line."""
    done = start("--debug", "ask", "Hi", **NOWHERE)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ServerUnreachableError" in done.stderr


def test_models(run: Run) -> None:
    """The table has every model, the loaded one marked; `--loaded` has only that."""
    table = run("models").stdout
    assert "speaker-1b" in table
    assert "7.3 GB" in table
    assert "text-embedder" in table
    assert "text-embedder" not in run("models", "--loaded").stdout
    listed = json.loads(run("models", "--json").stdout)
    assert [(model["key"], model["type"], model["loaded"]) for model in listed] == [
        ("speaker-1b", "llm", True),
        ("text-embedder", "embedding", False),
    ]


def test_a_closed_pipe_is_no_error(environment: dict[str, str], speaker: Speaker) -> None:
    """`lmdeck ask … | head -1` ends quietly."""
    speaker.pieces = ["line\n"] * 20_000
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, "ask", "Hi"], env=environment, **pipes) as shown:
        assert shown.stdout
        assert shown.stderr
        assert shown.stdout.readline() == b"line\n"
        shown.stdout.close()
        assert shown.wait(30) == 0
        assert shown.stderr.read() == b""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_extra_it_says_how_to_get_it(missing: str) -> None:
    """No traceback, but the command that installs what is missing."""
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['chat']; from lmdeck.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert 'pip install "lmdeck[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_engine_extra_it_says_how_to_get_it(tmp_path: Path) -> None:
    """`lmdeck engine serve` names the extra that it needs."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    arguments = ["lmdeck", "engine", "serve", "--model", str(model), "--port", "0"]
    code = f"import sys; sys.modules['uvicorn'] = None; sys.argv = {arguments!r}; from lmdeck.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'pip install "lmdeck[engine]"' in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_help_and_version_import_little(arguments: list[str]) -> None:
    """They need the options and the names of the commands, not the client, Rich or prompt_toolkit."""
    heavy = {"rich", "prompt_toolkit", "pydantic", "msgspec", "urllib3", "asyncio"}
    code = (
        "import sys; from lmdeck.cli import run; run(sys.argv[1:]); "
        f"print(*{{name.partition('.')[0] for name in sys.modules}} & {heavy!r})"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert not done.stdout.splitlines()[-1]


@pytest.mark.parametrize("width", ["60", "100"])
def test_help_fits(width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No summary is cut, no line is longer than the terminal, and metavars are words."""
    monkeypatch.setenv("COLUMNS", width)
    for command in ("", *(command.name for command in COMMANDS), "gateway keys"):
        assert lmdeck.cli.run([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= int(width)
        assert not re.search(r"<\w+|<=|\{[A-Z]|\w\.\.\.$", text, re.MULTILINE), command
        if not command:
            assert [each.name for each in COMMANDS if f"  {each.name:<9}{each.summary}\n" not in text] == []


def test_options_of_the_server_may_follow_the_command(run: Run, server: str) -> None:
    """Whether before or after, also after a subcommand; a later address replaces an earlier one as a whole."""
    port = server.rpartition(":")[2]
    elsewhere = ("--base-url", "http://127.0.0.1:1")
    assert run("ask", "Hi", "--base-url", server, **NOWHERE).stdout == "Hello there\n"
    assert run(*elsewhere, "ask", "Hi", "--host", "127.0.0.1", "--port", port).stdout == "Hello there\n"
    assert run(*elsewhere, "models", "--base-url", server, "unload", "speaker-1b", *elsewhere).returncode == 1
    assert "Traceback" in run("ask", "Hi", "--debug", **NOWHERE).stderr


def test_a_usage_error_names_the_help_of_its_command(run: Run) -> None:
    assert run("models", "load").stderr.splitlines()[-1] == "  → Run `lmdeck models load --help`."
    assert "Did you mean 'doctor'" in run("docter").stderr
    done = run("engine")
    assert (done.returncode, "serve" in done.stdout) == (2, True)


def test_output_survives_every_encoding(start: Run, speaker: Speaker) -> None:
    """Where an encoding lacks a character, marks become ASCII and other characters are escaped; JSON stays valid."""
    speaker.pieces = ["naïve ✓ 😀 → 日本"]
    for arguments in (
        (),
        ("models",),
        ("doctor",),
        ("fake", "--faults"),
        ("ask", "Hi", "--model", "missing"),
        ("frob",),
    ):
        done = start(*arguments, PYTHONIOENCODING="cp1252")
        assert "Traceback" not in done.stderr, arguments
        assert done.stdout or done.stderr
    assert start("ask", "Hi", PYTHONIOENCODING="ascii").stdout == "na\\xefve + \\U0001f600 -> \\u65e5\\u672c\n"
    reply = json.loads(start("ask", "Hi", "--json", PYTHONIOENCODING="ascii").stdout)
    assert reply["content"]["message"] == "naïve ✓ 😀 → 日本"
