"""Calls that equal each other, and calls that should have come one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from asking import alm, last_asked, lm
from lmdeck import MaxRoundsError, Reply, Tool, ToolExecutionFailed, ToolFinished, ToolStarted, tool
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.scripted_answers import PlannedCall

WAYS = pytest.mark.parametrize("way", ["sync", "sync stream", "async", "async stream"])
paid: list[int] = []


@tool
def pay(amount: int, currency: str = "EUR") -> str:
    """Pay."""
    assert currency == "EUR"
    paid.append(amount)
    return f"paid {amount}, receipt {len(paid)}"


@tool
def fail(amount: int) -> str:
    """Fail."""
    paid.append(amount)
    raise ZeroDivisionError


@tool(repeatable=True)
def roll() -> int:
    """Roll a die."""
    paid.append(0)
    return len(paid)


def calls(*named: tuple[str, dict[str, Any] | str]) -> Answer:
    planned = [PlannedCall(id=f"call{at}", name=name, arguments=given) for at, (name, given) in enumerate(named)]
    return Answer(calls=tuple(planned))


@contextmanager
def model_that(*answers: Answer) -> Iterator[FakeLMStudio]:
    paid.clear()
    with FakeLMStudio() as fake:
        fake.add_model("m", context_length=1 << 20)
        rule = fake.when(lambda _: True)
        for answer in answers:
            rule.answer(answer)
        yield fake


def run(way: str, url: str, *tools: Tool[..., Any], options: dict[str, Any] | None = None, **limits: Any) -> Any:
    """Return the reply, and the events where they are streamed."""
    events: list[object] = []

    async def main() -> Reply:
        async with alm(url) as client:
            chat = client.chat().user("Hi").with_tools(tools).with_options(**options or {})
            if "stream" not in way:
                return await chat.run(**limits)
            async with chat.run_stream(**limits) as stream:
                async for event in stream:
                    events.append(event)
            return stream.reply

    if way.startswith("async"):
        return asyncio.run(main()), events
    with lm(url) as client:
        chat = client.chat().user("Hi").with_tools(tools).with_options(**options or {})
        if "stream" not in way:
            return chat.run(**limits), events
        with chat.run_stream(**limits) as stream:
            events += stream
        return stream.reply, events


def told(fake: FakeLMStudio) -> list[str]:
    """Return what the model was told of its calls, in the last request, and check that each call has its answer."""
    messages = last_asked(fake).body["messages"]
    results = [message for message in messages if message["role"] == "tool"]
    asked = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert [message["tool_call_id"] for message in results] == asked
    return [message["content"] for message in results]


def codes(reply: Reply) -> list[str]:
    """Return the problems' codes, but for call ids that were made unique."""
    return [problem.code for problem in reply.problems if problem.code != "adjusted"]


DONE = Answer(content="Done.")
EQUAL = {
    "as they are": [{"amount": 5}] * 9,
    "with its default": [{"amount": 5}, {"amount": 5, "currency": "EUR"}],
    "in other words": ['{"amount": 5}', '{ "amount" : 5 }', '{"amount": "5"}', '{"amount": 5.0}'],
}


@WAYS
@pytest.mark.parametrize("equal", EQUAL)
def test_equal_calls_of_one_answer_run_once(equal: str, way: str) -> None:
    """Each of them gets the result, and the reply and the events say so."""
    given = [("pay", arguments) for arguments in EQUAL[equal]]
    with model_that(calls(*given, ("pay", {"amount": 7})), DONE) as fake:
        reply, events = run(way, fake.base_url, pay)
        assert sorted(paid) == [5, 7]
        shared, other = set(told(fake)[:-1]), told(fake)[-1]
    assert len(shared) == 1
    assert "paid 5" in shared.pop()
    assert "paid 7" in other
    results = reply.rounds[0].results
    assert [result.repeated for result in results] == [False, *[True] * (len(given) - 1), False]
    assert sum(problem.code == "repeated_call" for problem in reply.problems) == len(given) - 1
    if events:
        assert sum(isinstance(event, ToolStarted) for event in events) == 2
        done = [event.result.call.id for event in events if isinstance(event, ToolFinished)]
        assert sorted(done) == [call.id for call in reply.rounds[0].reply.tool_calls]


@WAYS
def test_a_failure_that_equal_calls_share_counts_once(way: str) -> None:
    """Nine of them are one failure, for a handler that raises and for arguments that do not fit."""
    wrong = [("pay", {"sum": 1})] * 9
    with model_that(calls(*[("fail", {"amount": 1})] * 9), calls(*wrong), DONE) as fake:
        reply, events = run(way, fake.base_url, fail, pay, max_failures=3)
        assert len(told(fake)) == 18
        assert paid == [1]
    assert all(result.error is not None for one in reply.rounds for result in one.results)
    if events:
        assert sum(isinstance(event, ToolExecutionFailed) for event in events) == 9 + 8


@WAYS
def test_each_call_of_a_repeatable_tool_counts(way: str) -> None:
    """Each call runs, in one answer and in every round."""
    rounds = [calls(("roll", {}), ("roll", {}))] * 4
    with model_that(*rounds, DONE) as fake:
        reply, _ = run(way, fake.base_url, roll)
        assert sorted(told(fake)) == [str(number) for number in range(1, 9)]
    assert codes(reply) == []


def test_a_tool_stays_repeatable_however_it_is_made() -> None:
    """Every way to register a tool keeps the mark, also for a method."""

    class Dice:
        @tool(repeatable=True)
        def roll(self) -> int:
            return 4

    with lm("http://localhost:9") as client:

        @client.tool(repeatable=True)
        def flip() -> bool:
            return True

        assert flip.repeatable
        assert client.register_tool("one", handler=lambda: 1, repeatable=True).repeatable
        assert client.register_tool("two", handler=lambda: 1, parameters={}, repeatable=True).repeatable
    assert Dice().roll.repeatable


@WAYS
def test_a_call_repeated_in_later_rounds_gets_its_result_again(way: str) -> None:
    """The text itself, not a pointer to it; and a model that goes on is stopped."""
    again = calls(("pay", {"amount": 5}))
    with model_that(again, again, again, DONE) as fake:
        reply, _ = run(way, fake.base_url, pay)
        first, second, third = told(fake)
    assert paid == [5, 5]
    assert (first, second) == ("paid 5, receipt 1", "paid 5, receipt 2")
    assert third.startswith("paid 5, receipt 2\n\n[You have already made this call; the result is the same")
    assert codes(reply) == ["repeated_call"]
    with model_that(again) as fake, pytest.raises(MaxRoundsError, match="repeatedly calls"):
        run(way, fake.base_url, pay, max_rounds=20)


@WAYS
def test_one_call_at_a_time_where_the_request_asks_for_it(way: str) -> None:
    """The first that can be run is; the model hears that the others were not, and may make them again."""
    many = calls(("pay", {"sum": 1}), ("pay", {"amount": 1}), ("pay", {"amount": 1}), ("pay", {"amount": 2}))
    with model_that(many, calls(("pay", {"amount": 2})), DONE) as fake:
        reply, events = run(way, fake.base_url, pay, options={"parallel_tool_calls": False})
        wrong, one, same, left, later = told(fake)
    assert paid == [1, 2]
    assert "do not match" in wrong
    assert one == same == "paid 1, receipt 1"
    assert "was not run: only one call at a time" in left
    assert later == "paid 2, receipt 2"
    assert codes(reply) == ["parallel_calls", "repeated_call", "parallel_calls"]
    if events:
        assert sum(isinstance(event, ToolStarted) for event in events) == 2


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
def test_a_single_answer_with_several_calls_reports_them(endpoint: str, is_streamed: bool) -> None:
    """The caller runs them, and is told that there should be one."""
    many = calls(("pay", {"amount": 1}), ("pay", {"amount": 2}))
    with model_that(many) as fake, lm(fake.base_url) as client:
        messages = [{"role": "user", "content": "Hi"}]
        choice = {"type": "auto", "disable_parallel_tool_use": True}
        offer: dict[str, Any] = {"input": "Hi", "tools": [pay], "parallel_tool_calls": False}
        ask: Any = {
            "chat": client.chat().user("Hi").with_tools([pay]).with_options(parallel_tool_calls=False),
            "responses": client.responses,
            "messages": client.messages,
        }[endpoint]
        if endpoint == "messages":
            offer = {"messages": messages, "tools": [pay], "tool_choice": choice}
        if endpoint == "chat":
            reply = ask.stream().until_done() if is_streamed else ask.send()
        else:
            reply = ask.stream(**offer).until_done() if is_streamed else ask.create(**offer)
    assert len(reply.tool_calls) == 2
    assert "parallel_calls" in [problem.code for problem in reply.problems]
