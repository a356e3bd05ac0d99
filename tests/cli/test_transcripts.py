"""What the screen shows: narrow and wide, without colour, in another encoding, in a pipe."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_tools import COMMAND, Run, Speaker

from asking import last_asked
from lmdeck import History
from lmdeck.cli.chat_sessions import LIMIT, ChatSession, recent_sessions
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE
from terminals import Terminal

ANSWER = """Use the <br> tag, `List<String>` or Map<String, Integer>.

<div>Hello</div>

| language | line break |
|---|---|
| HTML | `<br>` |
| Java | a text that is rather long, so that it has to be wrapped in a narrow terminal |

1. First

2. Second

```python
print("a < b")
```
"""
TOOLS = '''
import lmdeck

@lmdeck.tool
def get_weather(city: str) -> dict:
    """Get the weather in a city."""
    return {"city": city, "celsius": 21}
'''


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(cuts=False) as fake:
        yield fake


@pytest.fixture
def there(environment: dict[str, str], fake: FakeLMStudio) -> dict[str, str]:
    return {**environment, "LMDECK_BASE_URL": fake.base_url}


@pytest.mark.parametrize("columns", [60, 100])
def test_a_conversation_shows_everything(
    columns: int, there: dict[str, str], fake: FakeLMStudio, tmp_path: Path
) -> None:
    """The greeting, angle brackets, a table, a numbered list and code; a tool call with its result; the commands."""
    (tmp_path / "tools.py").write_text(TOOLS)
    fake.reply(ANSWER)
    fake.tool_call("get_weather", city="Paris").reply("It is **21 °C** in Paris.")
    fake.reply("Once more: 21 °C.")
    with contextlib.closing(Terminal([*COMMAND, "chat"], there, columns, lines=90)) as terminal:
        terminal.wait_for("Ctrl-D to leave")
        assert re.match(
            rf"lmdeck \S+ · LM Studio at {fake.base_url} model qwen2.5-7b-instruct /help", " ".join(terminal.rows)
        )
        terminal.type("How do I break a line?\r")
        terminal.wait_for("tokens")
        text = " ".join(" ".join(terminal.rows).split())
        for words in (
            "Use the <br> tag, List<String> or Map<String, Integer>.",
            "<div>Hello</div>",
            "1 First",
            "2 Second",
        ):
            assert words in text
        assert any(re.fullmatch(r" HTML +<br>", row) for row in terminal.rows)
        assert 'print("a < b")' in text
        terminal.type(f"/tools {tmp_path / 'tools.py'}\r")
        terminal.wait_for("Get the weather in a city.")
        terminal.type("The weather in Paris?\r")
        terminal.wait_for("in Paris.")
        assert "  → get_weather(city='Paris')" in terminal.rows
        assert '  = {"city":"Paris","celsius":21}' in terminal.rows
        terminal.type("/retry\r")
        terminal.wait_for("Once more: 21 °C.")
        terminal.forget()
        terminal.type("/copy\r")
        terminal.wait_for("Copied 17 characters")
        terminal.type("/quit\r")
        terminal.wait_for("lmdeck chat --resume")
    asked = [message["content"] for message in last_asked(fake).messages if message["role"] == "user"]
    assert asked == ["How do I break a line?", "The weather in Paris?"]


def test_a_conversation_can_be_continued(there: dict[str, str], fake: FakeLMStudio, tmp_path: Path) -> None:
    """The last one with `--continue`, any with `/resume`; the files are private."""
    fake.reply("The first answer.").reply("The second answer.")
    with contextlib.closing(Terminal([*COMMAND, "chat"], there)) as terminal:
        terminal.wait_for("Ctrl-D to leave")
        terminal.type("First question\r")
        terminal.wait_for("tokens")
        terminal.type("/quit\r")
        assert terminal.process.wait(PATIENCE * 4) == 0
    (saved,) = (tmp_path / "chats").iterdir()
    assert saved.stat().st_mode & 0o77 == 0
    with contextlib.closing(Terminal([*COMMAND, "chat", "--continue"], there)) as terminal:
        terminal.wait_for("The first answer.")
        terminal.type("/resume\r")
        terminal.wait_for(f"{saved.stem}  First question")
        terminal.type("Second question\r")
        terminal.wait_for("The second answer.")
    assert [message["content"] for message in last_asked(fake).messages] == [
        "First question", "The first answer.", "Second question",
    ]  # fmt: skip


def test_no_words_are_broken_in_a_narrow_terminal(there: dict[str, str], run: Run, fake: FakeLMStudio) -> None:
    """`doctor` wraps between words, and indents what follows."""
    call = PlannedCall(name="get_weather", arguments={"city": "Paris"})
    fake.when(lambda request: bool(request.tools)).answer(Answer(calls=(call,)))
    fake.when(lambda request: request.schema is not None).from_schema()
    fake.when(lambda request: "Say yes" in request.last_user).reply("Yes")
    with contextlib.closing(Terminal([*COMMAND, "doctor"], there, columns=60)) as terminal:
        terminal.wait_for("structured")
        terminal.process.wait(PATIENCE * 4)
        rows = terminal.rows
    words = set(run("doctor", LMDECK_BASE_URL=fake.base_url).stdout.split())
    unsteady = re.compile(r"\d")
    assert [word for row in rows for word in row.split() if word not in words and not unsteady.search(word)] == []
    assert all(re.match(r"[✓!✗-] \w+ +\S|  → \S| {4}", row) for row in rows), rows


def test_without_colour(there: dict[str, str], fake: FakeLMStudio) -> None:
    """With NO_COLOR nothing is coloured, and everything is still said."""
    fake.reply(ANSWER)
    with contextlib.closing(Terminal([*COMMAND, "chat"], {**there, "NO_COLOR": "1"})) as terminal:
        terminal.wait_for("Ctrl-D to leave")
        terminal.type("How?\r")
        terminal.wait_for("tokens")
        cells = [cell for row in terminal.screen.buffer.values() for cell in row.values()]
    assert {(cell.fg, cell.bg) for cell in cells} == {("default", "default")}


def test_a_terminal_without_unicode(there: dict[str, str], fake: FakeLMStudio) -> None:
    """Where the encoding has no marks, they are ASCII, and a character of the answer is escaped."""
    fake.reply("naïve → 日")
    with contextlib.closing(Terminal([*COMMAND, "chat"], {**there, "PYTHONIOENCODING": "ascii"})) as terminal:
        terminal.wait_for("Ctrl-D to leave")
        terminal.type("How?\r")
        terminal.wait_for(r"na\xefve -> \u65e5")
        terminal.wait_for(" - ")
        assert "Traceback" not in terminal.seen


def test_a_pipe_gets_only_the_answers(run: Run, speaker: Speaker) -> None:
    """No prompt, no greeting, no warning; the exit code says whether the last question was answered."""
    done = run("chat", stdin="First\n\nSecond\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there\nHello there\n", "")
    assert [turn.text for turn in speaker.jobs[-1].prompt] == ["First", "Hello there", "Second"]
    assert run("chat", stdin="Hi\n", LMDECK_BASE_URL="http://127.0.0.1:1").returncode == 1


def test_tools_that_cannot_be_loaded_are_named(run: Run, tmp_path: Path) -> None:
    """A missing file, one that fails, and one without tools: a line and a hint each."""
    (tmp_path / "fails.py").write_text("1 / 0")
    (tmp_path / "empty.py").write_text("")
    for name, words in (
        ("missing.py", "There is no file"),
        ("fails.py", "ZeroDivisionError"),
        ("empty.py", "no tools"),
    ):
        done = run("chat", "--tools", str(tmp_path / name), stdin="Hi\n")
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_sessions_have_safe_names(run: Run) -> None:
    assert run("chat", "--resume", "../../etc/passwd", stdin="Hi\n").returncode == 2
    assert "No conversation is saved" in run("chat", "-c", stdin="Hi\n").stderr


LONG = "mistralai/mistral-small-3.2-24b-instruct-2506"


def test_sessions_beside_anything_else_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, a link to nothing, a list, and files that other chats remove at the same moment."""
    monkeypatch.setenv("LMDECK_CHATS_DIR", str(tmp_path))
    ChatSession("own", History().user("Hi")).save()
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "nothing")
    (tmp_path / "list.json").write_text('[{"role": "user", "content": "Hi"}]')
    (tmp_path / "torn.json").write_text("{")
    assert {session.name: session.model for session in recent_sessions(9)} == {"own": None, "list": None}
    with ThreadPoolExecutor(4) as threads:
        for saved in [threads.submit(ChatSession(f"s{number}", History()).save) for number in range(LIMIT + 40)]:
            saved.result(PATIENCE)
    assert len(list(tmp_path.glob("s*.json"))) <= LIMIT + 4


@pytest.mark.parametrize("command", ["models", "ps"])
def test_names_in_tables_stay_whole(command: str, there: dict[str, str], run: Run, fake: FakeLMStudio) -> None:
    """In a narrow terminal, each row becomes a block; in a pipe, every row is one line, however long."""
    fake.add_model(LONG, loaded=True)
    with contextlib.closing(Terminal([*COMMAND, command], there, columns=60)) as terminal:
        for name in (LONG, "text-embedding"):
            terminal.wait_for(name)
        assert LONG in terminal.rows
        assert max(map(len, terminal.rows)) <= 60
    head, *rows = run(command, LMDECK_BASE_URL=fake.base_url, COLUMNS="60").stdout.splitlines()
    assert head.split()[:1] == [{"models": "model", "ps": "instance"}[command]]
    assert len([row for row in rows if LONG in row and "4096" in row]) == 1
