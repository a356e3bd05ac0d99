"""A conversation as a value."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asking import lm
from lmdeck import ConfigurationError, History, Message, Reply, ToolCall, tool
from lmdeck.testing import FakeLMStudio

CALL = ToolCall(id="c1", name="look", arguments={"at": "sky"}, raw_arguments='{"at": "sky"}')
ASKED = Reply(tool_calls=[CALL])


def roles(history: History) -> list[str]:
    return [message.role for message in history]


def full() -> History:
    return (
        History().system("Be brief.").user("One").add(Reply(content="1")).user("Look").add(ASKED)
        .tool_result(CALL, {"blue": True}).add(Reply(content="Blue.")).user("Thanks").add(Reply(content="Welcome."))
    )  # fmt: skip


def test_it_grows_and_stays_as_it_was() -> None:
    empty = History()
    one = empty.user("Hi")
    assert (len(empty), len(one)) == (0, 1)
    assert roles(full()) == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
    ]
    assert full().system("Be long.").messages[0].content == "Be long."
    assert len(full().system("Be long.")) == len(full())
    assert one.add({"role": "assistant", "content": None}).messages[-1].content == ""


def test_results_belong_to_calls() -> None:
    history = History().user("Look").add(ASKED)
    done = history.tool_result(CALL, "blue")
    assert done.messages[-1].tool_call_id == "c1"
    for wrong in (History(), done):
        with pytest.raises(ConfigurationError, match="'c1'"):
            wrong.tool_result(CALL, "blue")
    with pytest.raises(ConfigurationError):
        history.add({"role": "nobody"})


@pytest.mark.parametrize("budget", range(0, 200, 3))
def test_what_is_left_is_whole_and_as_much_as_fits(budget: int) -> None:
    def count(message: Message) -> int:
        return 10

    history = full()
    kept = history.trimmed(budget, count)
    assert roles(kept)[:2] == ["system", "user"]
    assert kept.messages[-2:] == history.messages[-2:]
    calls = {call.id for message in kept for call in message.tool_calls}
    assert calls == {message.tool_call_id for message in kept if message.role == "tool"}
    if len(kept) > 3:
        assert len(kept) * 10 <= budget
    if budget >= 90:
        assert kept == history
    assert kept.trimmed(budget, count) == kept


def test_the_estimate_trims_long_talk() -> None:
    history = History().system("S")
    for number in range(50):
        history = history.user("word " * 50).add(Reply(content=f"{number} " * 50))
    kept = history.trimmed(1000)
    assert 3 <= len(kept) < 20
    assert kept.messages[-1] == history.messages[-1]
    assert History().trimmed(10) == History()


def test_it_goes_to_a_file_and_back(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    full().save(file)
    assert History.load(file).to_json() == full().to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]
    assert History.from_json(json.dumps([{"role": "user", "content": "Hé"}])).messages[0].content == "Hé"
    for bad in ("{", "5", '{"messages": 5}', "[5]", '[{"role": "x"}]', "[" * 100_000):
        with pytest.raises(ConfigurationError):
            History.from_json(bad)
    file.write_text("{")
    with pytest.raises(ConfigurationError, match=r"talk\.json: The history is not JSON"):
        History.load(file)


def test_a_chat_takes_it_and_a_run_gives_it_back(fake: FakeLMStudio) -> None:
    @tool
    def look(at: str) -> str:
        return "blue"

    fake.tool_call("look", at="sky").reply("Blue.").reply("Yes.")
    with lm(fake.base_url) as client:
        history = History().user("Look up.")
        history = history.add(client.chat().with_messages(history).with_tools([look]).run()).user("Sure?")
        assert client.chat().with_messages(history).send().content == "Yes."
        sent = fake.requests[-1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]


WRONG: Any = None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: History().user(WRONG), "A user message must be text, not NoneType"),
        (lambda: History().system(WRONG), "A system message must be text, not NoneType"),
        (lambda: History().tool_result(WRONG, "x"), "call must be a ToolCall, not NoneType"),
        (lambda: History.from_json(WRONG), "The history must be text or bytes, not NoneType"),
        (lambda: History.load(WRONG), "The path of a history must be text or a Path, not NoneType"),
        (lambda: History().save(WRONG), "The path of a history must be text or a Path, not NoneType"),
        (lambda: History.load("\0"), r"'\\x00' is not a path"),
    ],
)
def test_an_argument_of_another_type_is_refused(call: Callable[[], object], words: str) -> None:
    """The error names the type that was passed, and the one that is expected."""
    with pytest.raises(ConfigurationError, match=words):
        call()
