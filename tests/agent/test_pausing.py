"""A run that pauses for decisions, and goes on later or in another process: nothing runs before it is allowed, nor twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmdeck import (
    PAUSE,
    ConfigurationError,
    LMStudio,
    MaxRoundsError,
    PausedRun,
    Reply,
    RunPaused,
    ToolError,
    ToolFinished,
    tool,
)
from lmdeck.testing import FakeLMStudio

HERE = Path(__file__).parent
WAYS = ["sync", "sync stream", "async", "async stream"]


class Bank:
    """Tools that count what they did."""

    def __init__(self) -> None:
        self.paid: list[int] = []

        @tool
        def pay(amount: int) -> str:
            """Pay an amount."""
            self.paid.append(amount)
            return f"paid {amount}"

        @tool
        def look() -> str:
            """Look at the account."""
            return "100 left"

        self.tools = [pay, look]


@pytest.fixture(name="fake")
def _fake() -> Any:
    with FakeLMStudio() as fake:
        yield fake


def ask(way: str, fake: FakeLMStudio, bank: Bank, **run: Any) -> Reply | PausedRun:
    """Ask in one of the ways, for the first time."""
    return go(way, fake, bank, "run", **run)


def resume(way: str, fake: FakeLMStudio, bank: Bank, paused: PausedRun, decisions: Any, **run: Any) -> Any:
    """Go on with a chat that has nothing but the tools."""
    return go(way, fake, bank, "resume", paused, decisions, **run)


def go(way: str, fake: FakeLMStudio, bank: Bank, verb: str, *given: Any, **run: Any) -> Any:
    if way.startswith("sync"):
        with fake.client() as client:
            chat = client.chat().with_tools(bank.tools)
            chat = chat.user("Pay 5.") if verb == "run" else chat
            if way == "sync":
                return getattr(chat, verb)(*given, **run)
            with getattr(chat, f"{verb}_stream")(*given, **run) as stream:
                list(stream)
            return stream.outcome

    async def main() -> Any:
        async with fake.async_client() as client:
            chat = client.chat().with_tools(bank.tools)
            chat = chat.user("Pay 5.") if verb == "run" else chat
            if way == "async":
                return await getattr(chat, verb)(*given, **run)
            async with getattr(chat, f"{verb}_stream")(*given, **run) as stream:
                async for _ in stream:
                    continue
            return stream.outcome

    return asyncio.run(main())


def chats(fake: FakeLMStudio) -> list[Any]:
    """Return the requests for answers."""
    return [request for request in fake.requests if request.path == "/v1/chat/completions"]


def stored(paused: Reply | PausedRun) -> PausedRun:
    """Send a paused run through its JSON."""
    assert isinstance(paused, PausedRun)
    return PausedRun.from_json(paused.to_json())


@pytest.mark.parametrize("way", WAYS)
def test_nothing_runs_before_it_is_allowed(fake: FakeLMStudio, way: str) -> None:
    """The run ends with its calls; resumed, it has the history that a run without a pause has."""
    for _ in range(2):
        fake.tool_call("pay", amount=5)
        fake.reply("Done.")
    bank = Bank()
    whole = ask(way, fake, bank)
    assert isinstance(whole, Reply)
    assert bank.paid == [5]
    paused = ask(way, fake, bank, approve="pause")
    assert isinstance(paused, PausedRun)
    assert bank.paid == [5]
    assert [(call.name, call.arguments) for call in paused.calls] == [("pay", {"amount": 5})]
    assert paused.partial.tool_calls == paused.calls
    assert paused.partial.messages == []
    reply = resume(way, fake, bank, stored(paused), {paused.calls[0].id: True})
    assert bank.paid == [5, 5]
    assert reply.content == "Done."
    assert [message.role for message in reply.messages] == [message.role for message in whole.messages]
    assert [one.reply.content for one in reply.rounds] == [one.reply.content for one in whole.rounds]
    assert reply.usage is not None
    assert whole.usage is not None
    assert reply.usage.prompt_tokens == whole.usage.prompt_tokens
    first, second = (request.body["messages"] for request in (chats(fake)[1], chats(fake)[3]))
    assert [message["role"] for message in first] == [message["role"] for message in second]
    fake.assert_exhausted()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("decision", [False, "too much"], ids=str)
def test_a_refusal_and_its_reason_are_reported_to_the_model(fake: FakeLMStudio, way: str, decision: Any) -> None:
    """The tool does not run."""
    fake.tool_call("pay", amount=5)
    fake.reply("All right.")
    bank = Bank()
    paused = stored(ask(way, fake, bank, approve="pause"))
    reply = resume(way, fake, bank, paused, {paused.calls[0].id: decision})
    assert bank.paid == []
    assert reply.content == "All right."
    told = chats(fake)[-1].body["messages"][-1]["content"]
    assert "did not allow" in told
    assert ("too much" in told) == (decision == "too much")


def test_only_what_needs_it_waits(fake: FakeLMStudio) -> None:
    """A call that `approve` allows at once runs with the ones that were decided later, once each."""
    fake.tool_calls([("look", {}), ("pay", {"amount": 5}), ("pay", {"amount": 7}), ("pay", {"amount": 7})])
    fake.reply("Done.")
    bank = Bank()
    asked: list[str] = []

    def approve(call: Any) -> Any:
        asked.append(call.name)
        return PAUSE if call.name == "pay" else True

    paused = stored(ask("sync", fake, bank, approve=approve))
    assert asked == ["look", "pay", "pay"]  # equal calls are one
    assert [call.arguments["amount"] for call in paused.calls] == [5, 7]
    five, seven = paused.calls
    reply = resume("sync", fake, bank, paused, {five.id: False, seven.id: True})
    assert bank.paid == [7]
    assert [result.content.partition(".")[0] for result in reply.rounds[0].results] == [
        "100 left", "The user did not allow this call", "paid 7", "paid 7",
    ]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_it_pauses_again(fake: FakeLMStudio, way: str) -> None:
    """By default each further answer with calls waits, too; what ran before does not run again."""
    fake.tool_call("pay", amount=1)
    fake.tool_call("pay", amount=2)
    fake.reply("Done.")
    bank = Bank()
    first = stored(ask(way, fake, bank, approve="pause"))
    second = stored(resume(way, fake, bank, first, True))
    assert second.id != first.id
    assert bank.paid == [1]
    assert [one.results[0].content for one in second.rounds] == ["paid 1"]
    reply = resume(way, fake, bank, second, True)
    assert bank.paid == [1, 2]
    assert len(reply.rounds) == 3
    assert len(reply.messages) == 5


def test_a_run_is_resumed_once(fake: FakeLMStudio) -> None:
    """A process resumes a run once, whichever copy and client it uses; a wrong decision does not use it up."""
    fake.tool_call("pay", amount=5)
    fake.reply("Done.")
    bank = Bank()
    paused = ask("sync", fake, bank, approve="pause")
    copies = [stored(paused), stored(paused)]
    for wrong in ({}, {"nobody": True}, {copies[0].calls[0].id: None}):
        with pytest.raises(ConfigurationError):
            resume("sync", fake, bank, copies[0], wrong)
    with pytest.raises(ConfigurationError, match="no handler"), fake.client() as client:
        client.chat().resume(copies[0], True)
    assert resume("sync", fake, bank, copies[0], True).content == "Done."
    for way in WAYS:
        with pytest.raises(ConfigurationError, match="resumed before"):
            resume(way, fake, bank, copies[1], True)
    assert bank.paid == [5]


def test_another_process_goes_on(fake: FakeLMStudio, tmp_path: Path) -> None:
    """All that it needs is the JSON and the tools."""
    fake.tool_call("pay", amount=5)
    fake.reply("Done by another.")
    bank = Bank()
    paused = ask("sync", fake, bank, approve="pause")
    assert isinstance(paused, PausedRun)
    path = tmp_path / "run.json"
    path.write_text(paused.to_json())
    decisions = json.dumps({paused.calls[0].id: True})
    done = subprocess.run(
        [sys.executable, HERE / "resume.py", fake.base_url, path, decisions],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Done by another.\n", done.stderr
    assert path.with_suffix(".paid").read_text() == "5\n"
    assert bank.paid == []


def test_limits_count_what_was_before_the_pause(fake: FakeLMStudio) -> None:
    """Rounds, failures in a row and repeated calls."""
    for _ in range(3):
        fake.tool_call("look")
    fake.reply("Enough.")
    bank = Bank()
    again: Any = ask("sync", fake, bank, approve="pause")
    again = resume("sync", fake, bank, stored(again), True)
    third = resume("sync", fake, bank, stored(again), True)  # the third look is not run, and so not asked about
    assert third.content == "Enough."
    assert third.rounds[2].results[0].repeated
    fake.tool_call("pay", amount=1)
    with pytest.raises(MaxRoundsError):
        resume("sync", fake, bank, stored(ask("sync", fake, bank, approve="pause")), True, max_rounds=1)
    for amount in range(2):
        fake.tool_call("pay", amount=amount)
    failing: Any = ask("sync", fake, bank, approve="pause")
    failing = resume("sync", fake, bank, stored(failing), False)
    with pytest.raises(ToolError):
        resume("sync", fake, bank, stored(failing), False, max_failures=2)


def test_events_tell_of_the_pause(fake: FakeLMStudio) -> None:
    """The pause is reported to the caller who iterates and to the client's listeners."""
    fake.tool_call("pay", amount=5)
    fake.reply("Done.")
    bank, heard = Bank(), []
    client: LMStudio
    with fake.client() as client:
        client.on(RunPaused, heard.append)
        with client.chat().user("Pay 5.").with_tools(bank.tools).run_stream(approve="pause") as run:
            *_, last = run
        assert [last] == heard
        assert isinstance(last, RunPaused)
        assert run.paused is not None
        assert last.id == run.paused.id
        assert list(last.calls) == run.paused.calls
        assert run.reply.finish_reason == "tool_calls"
        with client.chat().with_tools(bank.tools).resume_stream(run.paused, True) as more:
            kinds = [type(step) for step in more]
        assert kinds.index(ToolFinished) < len(kinds) - 1
        assert more.paused is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "lmdeck history 1"}', "[" * 100_000])
def test_what_is_no_paused_run_is_refused(text: str) -> None:
    """Text that is not a stored run raises an error with a sentence."""
    with pytest.raises(ConfigurationError, match="not a paused run"):
        PausedRun.from_json(text)


def test_a_later_format_is_refused(fake: FakeLMStudio) -> None:
    """It may hold what this version does not know."""
    fake.tool_call("pay", amount=5)
    paused = ask("sync", fake, Bank(), approve="pause")
    assert isinstance(paused, PausedRun)
    later = paused.to_json().replace("paused run 1", "paused run 9")
    with pytest.raises(ConfigurationError, match="format"):
        PausedRun.from_json(later)


def test_approve_is_checked(fake: FakeLMStudio) -> None:
    """An invalid `approve` is refused before anything is sent."""
    with fake.client() as client, pytest.raises(ConfigurationError, match="approve"):
        client.chat().user("Hi").run(approve="later")  # type: ignore[call-overload]
    assert fake.requests == []
