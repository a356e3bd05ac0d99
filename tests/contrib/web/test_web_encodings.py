"""The three encodings of one answer: lmdeck's own, Vercel's and AG-UI's, the latter held to its own package."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from lmdeck import ConfigurationError
from lmdeck.testing import FakeLMStudio
from lmdeck.web.answer import StreamedAnswer
from lmdeck.web.encodings import HEARTBEAT_FRAME, find_encoding

if TYPE_CHECKING:
    from collections.abc import Callable


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    if city == "Atlantis":
        raise ValueError("it sank")
    return f"sun over {city}"


def frames(encoding: str, script: Callable[[FakeLMStudio], object], heartbeat: float = 5.0) -> list[bytes]:
    """Answer one question that may call tools, and give the frames."""

    async def ask() -> list[bytes]:
        async with FakeLMStudio(seed=1) as fake:
            script(fake)
            async with fake.async_client() as alm:
                chat = alm.chat().user("Weather?").with_tools([get_weather])
                answer = StreamedAnswer(lambda: chat, encoding=find_encoding(encoding), with_details=True)
                return [frame async for frame in answer.frames(heartbeat)]

    return asyncio.run(ask())


def _any(_: object) -> bool:
    """Fit every request: what fails before its first piece was handed on is tried again."""
    return True


def parts(encoding: str, script: Callable[[FakeLMStudio], object]) -> list[dict[str, Any]]:
    blocks = b"".join(frames(encoding, script)).decode().split("\n\n")
    return [json.loads(block[6:]) for block in blocks if block.startswith("data: {")]


def kinds(told: list[dict[str, Any]]) -> list[str]:
    """Give the types, those that repeat once."""
    names = [str(each["type"]) for each in told]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


def with_tools(fake: FakeLMStudio) -> None:
    fake.reasoning("Let me see.").tool_calls(
        [("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Atlantis"})]
    )
    fake.reply("Sun.")


def test_vercel_reads_a_run_in_steps() -> None:
    told = parts("vercel", with_tools)
    assert kinds(told)[:5] == ["start", "start-step", "reasoning-start", "reasoning-delta", "reasoning-end"]
    names = [each["type"] for each in told]
    assert names.count("start-step") == names.count("finish-step") == 2
    inputs = [each for each in told if each["type"] == "tool-input-available"]
    assert [each["input"] for each in inputs] == [{"city": "Paris"}, {"city": "Atlantis"}]
    for each in inputs:
        written = "".join(
            part["inputTextDelta"]
            for part in told
            if part["type"] == "tool-input-delta" and part["toolCallId"] == each["toolCallId"]
        )
        assert json.loads(written) == each["input"]
    outcomes = {each["toolCallId"]: each["type"] for each in told if each["type"].startswith("tool-output")}
    assert [outcomes[each["toolCallId"]] for each in inputs] == ["tool-output-available", "tool-output-error"]
    assert told[-1] == {"type": "finish", "finishReason": "stop"}
    opened = [each["id"] for each in told if each["type"] in ("text-start", "reasoning-start")]
    closed = [each["id"] for each in told if each["type"] in ("text-end", "reasoning-end")]
    assert opened == closed
    assert len(set(opened)) == len(opened)
    assert frames("vercel", with_tools)[-1].endswith(b"data: [DONE]\n\n")
    assert find_encoding("vercel").headers["x-vercel-ai-ui-message-stream"] == "v1"


def test_vercel_is_told_of_an_error() -> None:
    told = parts("vercel", lambda fake: fake.when(_any).fail("crash"))
    assert told[-1]["type"] == "error"
    assert "crashed" in told[-1]["errorText"]


@pytest.mark.parametrize(
    "script", [with_tools, lambda fake: fake.when(_any).fail("cut"), lambda fake: fake.reply("Hi")]
)
def test_ag_ui_understands_every_event(script: Callable[[FakeLMStudio], object]) -> None:
    core = pytest.importorskip("ag_ui.core")
    from pydantic import TypeAdapter

    told = parts("ag-ui", script)
    adapter: TypeAdapter[Any] = TypeAdapter(core.Event)
    for each in told:
        adapter.validate_python(each)
    assert told[0]["type"] == "RUN_STARTED"
    assert told[-1]["type"] in ("RUN_FINISHED", "RUN_ERROR")
    opened = [each["messageId"] for each in told if each["type"] == "TEXT_MESSAGE_START"]
    assert opened == [each["messageId"] for each in told if each["type"] == "TEXT_MESSAGE_END"]
    calls = [each["toolCallId"] for each in told if each["type"] == "TOOL_CALL_START"]
    assert calls == [each["toolCallId"] for each in told if each["type"] == "TOOL_CALL_END"]
    assert sorted(calls) == sorted(each["toolCallId"] for each in told if each["type"] == "TOOL_CALL_RESULT")


def test_a_comment_is_sent_while_nothing_comes() -> None:
    told = frames("lmdeck", lambda fake: fake.reply("late", time_to_first_token=0.3), heartbeat=0.05)
    assert told.count(HEARTBEAT_FRAME) >= 3
    assert b'"done"' in told[-1]


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no encoding 'xml'"):
        find_encoding("xml")
