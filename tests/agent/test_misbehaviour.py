"""A model that misbehaves, in every way there is: each run ends in a right answer or in the named error, within its limits.

`docs/tools.md` shows this table; `test_the_docs_name_every_case` holds it to it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asking import alm, last_asked, lm, nothing_left_behind
from lmdeck import (
    EmptyReplyError,
    LMStudioError,
    MaxRoundsError,
    Reply,
    ToolArgumentsError,
    ToolExecutionError,
    ToolFailed,
    UnknownToolError,
    tool,
)
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE

DOCS = Path(__file__).parents[2] / "docs" / "tools.md"


@dataclass
class Weather:
    city: str
    degrees: int


class Sky(msgspec.Struct):
    clear: bool


release = threading.Event()


@tool
def weather(city: str, days: int = 1) -> dict[str, Any]:
    """Tell the weather."""
    return {"city": city, "days": days}


@tool
def broken() -> None:
    """Raise."""
    raise ZeroDivisionError("secret detail")


@tool
def declines(city: str) -> None:
    """Say no."""
    raise ToolFailed(f"{city} is closed today.")


@tool(timeout=0.1)
def hangs() -> None:
    """Wait."""
    release.wait(PATIENCE)


@tool(timeout=0.1)
async def sleeps() -> None:
    """Wait, awaited."""
    await asyncio.sleep(PATIENCE)


@tool
async def awaited(city: str) -> str:
    """Answer later."""
    await asyncio.sleep(0)
    return f"{city}: fine"


@tool
def gives_bytes() -> bytes:
    """Return bytes."""
    return b"raw"


@tool
def gives_dataclass(city: str) -> Weather:
    """Return a dataclass."""
    return Weather(city, 21)


@tool
def gives_struct() -> Sky:
    """Return a Struct."""
    return Sky(clear=True)


@tool
def gives_nothing() -> None:
    """Return None."""


@tool
def gives_an_object() -> object:
    """Return what JSON cannot hold."""
    return object()


@tool
def long() -> str:
    """Return more than a context holds."""
    return "x" * (2 << 20)


@tool
def declines_at_length() -> None:
    """Say no in more words than a context holds."""
    raise ToolFailed("x" * (2 << 20))


TOOLS = [
    weather, broken, declines, hangs, sleeps, awaited, gives_bytes, gives_dataclass, gives_struct, gives_nothing,
    gives_an_object, long, declines_at_length,
]  # fmt: skip


def calls(*named: tuple[str, dict[str, Any] | str], content: str = "") -> Answer:
    """Return an answer that calls tools; arguments that are text go as they are."""
    planned = [PlannedCall(id=f"call{at}", name=name, arguments=given) for at, (name, given) in enumerate(named)]
    return Answer(content=content, calls=tuple(planned), prompt_tokens=10, completion_tokens=2)


def says(text: str, reasoning: str = "") -> Answer:
    return Answer(content=text, reasoning=reasoning, prompt_tokens=10, completion_tokens=2)


@contextmanager
def model_that(*answers: Answer) -> Iterator[FakeLMStudio]:
    """Serve a model that gives these answers in turn, the last for ever, and remembers all that it is told."""
    with FakeLMStudio() as fake:
        fake.add_model("m", context_length=1 << 20)
        rule = fake.when(lambda _: True)
        for answer in answers:
            rule.answer(answer)
        yield fake


SUNNY = says("It is sunny.")
ROME = ("weather", {"city": "Rome"})


@dataclass
class Case:
    """One misbehaviour: what the model answers, and how the run must end."""

    model: tuple[Answer, ...]
    told: tuple[str, ...] = ()  # in the tool results, in order
    error: type[LMStudioError] | None = None
    rounds: int = 2
    problems: tuple[str, ...] = ()
    limits: dict[str, Any] | None = None


CASES: dict[str, Case] = {
    "a good call": Case((calls(ROME), SUNNY), ('{"city":"Rome","days":1}',)),
    "an unknown tool": Case((calls(("wether", {"city": "Rome"})), calls(ROME), SUNNY), ("no tool named", "Rome"), rounds=3,
                            problems=("unoffered_tool",)),
    "only unknown tools": Case((calls(("wether", {})),), error=UnknownToolError, limits={"max_failures": 3, "max_repeats": 9}),
    "numbers as text": Case((calls(("weather", {"city": "Rome", "days": "3"})), SUNNY), ('"days":3',), problems=("coerced",)),
    "wrong types": Case((calls(("weather", {"city": "Rome", "days": "many"})), calls(ROME), SUNNY), ("days", "Rome"), rounds=3),
    "missing arguments": Case((calls(("weather", {})), calls(ROME), SUNNY), ('"city" is a required', "Rome"), rounds=3),
    "extra arguments": Case(
        (calls(("weather", {"city": "Rome", "mood": "good"})), calls(ROME), SUNNY), ("'mood' was unexpected", "Rome"), rounds=3
    ),
    "only wrong arguments": Case((calls(("weather", {"town": "Rome"})),), error=ToolArgumentsError,
                                 limits={"max_failures": 2, "max_repeats": 9}),
    "JSON that can be repaired": Case((calls(("weather", "{'city': 'Rome',}")), SUNNY), ("Rome",), problems=("repaired",)),
    "JSON that cannot be repaired": Case((calls(("weather", "{city}")),), rounds=1, problems=("tool_call_unparsed",)),
    "arguments as a JSON string": Case((calls(("weather", json.dumps('{"city": "Rome"}'))), SUNNY), ("Rome",)),
    "the same call forever": Case((calls(ROME),), error=MaxRoundsError, limits={"max_rounds": 20}),
    "new calls forever": Case(
        tuple(calls(("weather", {"city": "Rome", "days": number})) for number in range(9)), error=MaxRoundsError,
        limits={"max_rounds": 4},
    ),
    "twenty calls in one answer": Case(
        (calls(*(("weather", {"city": f"City {number}"}) for number in range(20))), SUNNY),
        tuple(f"City {number}" for number in range(20)),
    ),
    "a handler that raises": Case((calls(("broken", {})), SUNNY), ("failed with ZeroDivisionError",)),
    "a handler that always raises": Case((calls(("broken", {})),), error=ToolExecutionError,
                                         limits={"max_failures": 3, "max_repeats": 9}),
    "a handler that declines": Case((calls(("declines", {"city": "Rome"})), SUNNY), ("Rome is closed today.",)),
    "a handler that hangs": Case((calls(("hangs", {})), SUNNY), ("did not finish within 0.1",)),
    "an async handler that hangs": Case((calls(("sleeps", {})), SUNNY), ("did not finish within 0.1",)),
    "a handler that is async": Case((calls(("awaited", {"city": "Rome"})), SUNNY), ("Rome: fine",)),
    "a handler that returns bytes": Case((calls(("gives_bytes", {})), SUNNY), ("raw",)),
    "a handler that returns a dataclass": Case((calls(("gives_dataclass", {"city": "Rome"})), SUNNY), ('"degrees":21',)),
    "a handler that returns a Struct": Case((calls(("gives_struct", {})), SUNNY), ('{"clear":true}',)),
    "a handler that returns nothing": Case((calls(("gives_nothing", {})), SUNNY), ("null",)),
    "a handler that returns no data": Case((calls(("gives_an_object", {})), SUNNY), ("failed with TypeError",)),
    "an endless result": Case((calls(("long", {})), SUNNY), ("[truncated: the result has",)),
    "an endless message of ToolFailed": Case(
        (calls(("declines_at_length", {})), SUNNY), ("[truncated: the result has",)
    ),
    "an empty answer between rounds": Case((calls(ROME), says(""), SUNNY), ("Rome",)),
    "only empty answers": Case((calls(ROME), says("")), error=EmptyReplyError),
    "a call inside reasoning": Case(
        (says("", reasoning='Hm.<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'), SUNNY),
        ("Rome",), problems=("calls_in_reasoning",),
    ),
    "a call in the text": Case(
        (says('Let me see. [TOOL_REQUEST]{"name": "weather", "arguments": {"city": "Rome"}}[END_TOOL_REQUEST]'), SUNNY),
        ("Rome",),
    ),
    "the same call twice in one answer": Case((calls(ROME, ROME), SUNNY), ("Rome", "Rome"), problems=("repeated_call",)),
    "good and bad calls together": Case((calls(ROME, ("nothing", {}), ("broken", {})), SUNNY), ("Rome", "no tool", "failed"),
                                       problems=("unoffered_tool",)),
    "text next to the call": Case((calls(ROME, content="One moment."), SUNNY), ("Rome",)),
}  # fmt: skip
RUNS = ["sync", "sync stream", "async", "async stream"]


def run(way: str, url: str, case: Case) -> tuple[Reply, list[object]]:
    seen: list[object] = []
    limits = case.limits or {}
    if way.startswith("sync"):
        with lm(url) as client:
            chat = client.chat().user("Weather?").with_tools(TOOLS)
            if way == "sync":
                return chat.run(**limits), seen
            with chat.run_stream(**limits) as stream:
                seen += stream
            return stream.reply, seen

    async def main() -> Reply:
        async with alm(url) as client:
            chat = client.chat().user("Weather?").with_tools(TOOLS)
            if way == "async":
                return await chat.run(**limits)
            async with chat.run_stream(**limits) as stream:
                async for step in stream:
                    seen.append(step)
            return stream.reply

    return asyncio.run(main()), seen


@pytest.mark.parametrize("way", RUNS)
@pytest.mark.parametrize("name", CASES)
def test_every_run_ends_well_or_with_the_named_error(name: str, way: str) -> None:
    case = CASES[name]
    release.clear()
    with nothing_left_behind(), model_that(*case.model) as fake:
        try:
            if case.error is not None:
                with pytest.raises(case.error) as caught:
                    run(way, fake.base_url, case)
                assert caught.value.hint
                partial = caught.value.partial
                if not isinstance(caught.value, EmptyReplyError):
                    assert partial is not None
                    assert partial.rounds
                return
            reply, seen = run(way, fake.base_url, case)
        finally:
            release.set()
        sent = [request.body for request in fake.requests]
    assert len(reply.rounds) == case.rounds
    results = [result for one in reply.rounds for result in one.results]
    assert len(results) == len(case.told)
    for result, told in zip(results, case.told, strict=True):
        assert told in result.content
        assert "secret detail" not in result.content
    if case.rounds > 1:
        assert reply.content == "It is sunny."
        tool_messages = [message for message in sent[-1]["messages"] if message["role"] == "tool"]
        assert [message["content"] for message in tool_messages] == [result.content for result in results]
        asked = [item["id"] for message in sent[-1]["messages"] for item in message.get("tool_calls", ())]
        assert [message["tool_call_id"] for message in tool_messages] == asked
        assert reply.usage is not None
        assert reply.usage.total_tokens == 12 * case.rounds
    assert (
        tuple(dict.fromkeys(problem.code for problem in reply.problems if problem.code != "adjusted")) == case.problems
    )
    if "stream" in way:
        assert {type(step).__name__ for step in seen} >= {"Chunk", "RoundFinished"}


def test_the_docs_name_every_case() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in CASES if f"| {name} |" not in text] == []


def test_answers_come_in_order_however_long_each_takes() -> None:
    order: list[str] = []
    is_quick_over = threading.Event()

    @tool
    def wait(name: str) -> str:
        if name == "slow":
            is_quick_over.wait(PATIENCE)
        order.append(name)
        is_quick_over.set()
        return name

    model = calls(("wait", {"name": "slow"}), ("wait", {"name": "quick"}))
    with model_that(model, SUNNY) as fake, lm(fake.base_url) as client:
        reply = client.chat().user("Hi").with_tools([wait]).run()
    assert order == ["quick", "slow"]
    assert [result.content for result in reply.rounds[0].results] == ["slow", "quick"]


def test_a_timeout_is_reported_as_one_however_late_it_is_noticed() -> None:
    with model_that(calls(("sleeps", {})), SUNNY) as fake, lm(fake.base_url) as client:
        with client.chat().user("Hi").with_tools([sleeps]).run_stream() as stream:
            for step in stream:
                if type(step).__name__ == "ToolStarted":
                    time.sleep(0.25)
        (result,) = stream.reply.rounds[0].results
    assert "did not finish within 0.1 seconds" in result.content


def test_the_choice_of_a_tool_binds_the_first_round_alone() -> None:
    with model_that(calls(ROME), SUNNY) as fake, lm(fake.base_url) as client:
        client.chat().user("Hi").with_tools([weather]).with_tool_choice("required").run()
        assert [request.body["tool_choice"] for request in fake.requests] == ["required", "auto"]


def test_a_tool_without_a_handler_ends_the_run_with_its_call() -> None:
    with model_that(calls(("elsewhere", {}))) as fake, lm(fake.base_url) as client:
        reply = client.chat().user("Hi").with_tools([weather, {"name": "elsewhere"}]).run()
    assert [item.name for item in reply.tool_calls] == ["elsewhere"]
    assert reply.finish_reason == "tool_calls"


def test_a_history_goes_on_from_a_run() -> None:
    with model_that(calls(ROME), SUNNY) as fake, lm(fake.base_url) as client:
        chat = client.chat().user("Hi").with_tools([weather])
        reply = chat.run()
        assert [message.role for message in reply.messages] == ["assistant", "tool", "assistant"]
        again = chat.with_messages(reply.messages).user("Thanks.").send()
        assert again.content == "It is sunny."
        assert [message["role"] for message in last_asked(fake).body["messages"]] == [
            "user", "assistant", "tool", "assistant", "user",
        ]  # fmt: skip


@pytest.mark.parametrize("way", ["sync", "sync, awaited", "sync in a loop", "async"])
@pytest.mark.parametrize(
    ("verdict", "told"), [(True, "Rome"), (False, "did not allow this call."), ("Too late.", "call: Too late.")]
)
def test_a_call_may_need_approval(way: str, verdict: Any, told: str) -> None:
    shown: list[str] = []
    with model_that(calls(ROME), SUNNY) as fake:

        def approve(call: Any) -> Any:
            shown.append(call.name)
            return verdict

        async def approve_later(call: Any) -> Any:
            await asyncio.sleep(0)
            return approve(call)

        def ask(approve: Any) -> Reply:
            with lm(fake.base_url) as client:
                return client.chat().user("Hi").with_tools([weather]).run(approve=approve)

        async def ask_in_a_loop() -> Reply:
            return ask(approve_later)

        async def ask_async() -> Reply:
            async with alm(fake.base_url) as client:
                return await client.chat().user("Hi").with_tools([weather]).run(approve=approve_later)

        if way.startswith("sync"):
            reply = asyncio.run(ask_in_a_loop()) if "loop" in way else ask(approve if way == "sync" else approve_later)
        else:
            reply = asyncio.run(ask_async())
    assert shown == ["weather"]
    assert told in reply.rounds[0].results[0].content


def test_leaving_a_run_cancels_what_runs() -> None:
    cancelled = asyncio.Event()

    async def main() -> None:
        @tool
        async def forever() -> None:
            try:
                await asyncio.sleep(2 * PATIENCE)
            finally:
                cancelled.set()

        with model_that(calls(("forever", {}))) as fake:
            async with alm(fake.base_url) as client:
                async with client.chat().user("Hi").with_tools([forever]).run_stream() as stream:
                    async for step in stream:
                        if type(step).__name__ == "ToolStarted":
                            await asyncio.sleep(0.01)
                            break
                await asyncio.wait_for(cancelled.wait(), PATIENCE)

    asyncio.run(main())


@pytest.mark.parametrize(
    "limits", [{"max_rounds": 0}, {"max_failures": -1}, {"max_repeats": True}, {"tool_timeout": 0}]
)
def test_limits_are_checked(limits: dict[str, Any]) -> None:
    with lm("http://localhost:9") as client, pytest.raises(LMStudioError, match=next(iter(limits))):
        client.chat().user("Hi").run(**limits)
