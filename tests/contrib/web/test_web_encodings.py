"""The three encodings of one answer: lmdeck's own, Vercel's and AG-UI's, the latter held to its own package."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from lmdeck import ConfigurationError, Reply
from lmdeck.testing import FakeLMStudio
from lmdeck.web.answer import StreamedAnswer
from lmdeck.web.encodings import HEARTBEAT_FRAME, ag_ui, find_encoding
from lmdeck.web.requests import PageQuestion

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
    """Return the types, those that repeat once."""
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


def test_a_tool_s_output_is_a_value_for_vercel_and_its_text_for_ag_ui() -> None:
    def look_up(key: str) -> object:
        """Look a key up."""
        return {"rows": [1, {"a": None}]} if key == "object" else "plain text"

    def script(fake: FakeLMStudio) -> None:
        fake.tool_calls([("look_up", {"key": "object"}), ("look_up", {"key": "text"})])
        fake.reply("Done.")

    async def ask(encoding: str) -> bytes:
        async with FakeLMStudio(seed=1) as fake:
            script(fake)
            async with fake.async_client() as alm:
                chat = alm.chat().user("Look").with_tools([look_up])
                answer = StreamedAnswer(lambda: chat, encoding=find_encoding(encoding))
                return b"".join([frame async for frame in answer.frames(5)])

    def told(encoding: str) -> list[dict[str, Any]]:
        blocks = asyncio.run(ask(encoding)).decode().split("\n\n")
        return [json.loads(block[6:]) for block in blocks if block.startswith("data: {")]

    outputs = [each["output"] for each in told("vercel") if each["type"] == "tool-output-available"]
    assert outputs == [{"rows": [1, {"a": None}]}, "plain text"]
    contents = [each["content"] for each in told("ag-ui") if each["type"] == "TOOL_CALL_RESULT"]
    assert [json.loads(contents[0]), contents[1]] == [{"rows": [1, {"a": None}]}, "plain text"]


def read(encoding: str, body: object) -> tuple[PageQuestion, Any]:
    chosen = find_encoding(encoding)
    question, bound = chosen.read(json.dumps(body).encode(), chosen)
    assert isinstance(question, PageQuestion)
    return question, bound.encoder()


def test_ag_ui_s_own_request_is_read_and_its_ids_are_sent_back() -> None:
    core = pytest.importorskip("ag_ui.core")
    sent = core.RunAgentInput(
        thread_id="t-1",
        run_id="r-1",
        state={},
        tools=[],
        context=[],
        forwarded_props={},
        messages=[
            core.SystemMessage(id="0", content="Obey me."),
            core.UserMessage(id="1", content="Weather?"),
            core.AssistantMessage(
                id="2",
                tool_calls=[
                    core.ToolCall(id="c", function=core.FunctionCall(name="get_weather", arguments='{"city": "Paris"}'))
                ],
            ),
            core.ToolMessage(id="3", content="sun", tool_call_id="c"),
            core.AssistantMessage(id="4", content="Sun."),
            core.UserMessage(id="5", content="Thanks"),
        ],
    )
    question, encoder = read("ag-ui", sent.model_dump(mode="json", by_alias=True))
    assert question.is_stateless
    messages = question.all_messages()
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert messages[1].tool_calls[0].arguments == {"city": "Paris"}
    assert messages[-1].content == "Thanks"
    events = encoder.encode(Reply(content="Bye.", finish_reason="stop")).decode()
    assert events.count('"threadId":"t-1","runId":"r-1"') == 2
    own = ag_ui("t-2", "r-2").encoder().encode(Reply()).decode()
    assert own.count('"threadId":"t-2","runId":"r-2"') == 2


def test_vercel_s_own_request_is_read() -> None:
    question, _ = read(
        "vercel",
        {
            "id": "chat-1",
            "trigger": "submit-message",
            "messages": [
                {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Weather?"}]},
                {
                    "id": "2",
                    "role": "assistant",
                    "parts": [
                        {"type": "step-start"},
                        {"type": "reasoning", "text": "Hm."},
                        {
                            "type": "tool-get_weather", "toolCallId": "c", "state": "output-available",
                            "input": {"city": "Paris"}, "output": {"sky": "blue"},
                        },
                        {"type": "step-start"},
                        {"type": "text", "text": "Sun."},
                    ],
                },
                {
                    "id": "3",
                    "role": "user",
                    "parts": [
                        {"type": "text", "text": "And here?"},
                        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,iVBORw0KGgo="},
                    ],
                },
            ],
        },
    )  # fmt: skip
    messages = question.all_messages()
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    assert (messages[1].tool_calls[0].name, messages[2].content) == ("get_weather", '{"sky":"blue"}')
    assert [part["type"] for part in messages[-1].content] == ["text", "image_url"]  # type: ignore[index,union-attr]


@pytest.mark.parametrize("encoding", ["vercel", "ag-ui"])
@pytest.mark.parametrize(
    "body",
    [
        [], 1, {}, {"messages": []}, {"messages": [1]}, {"messages": [{"role": "user"}]}, {"messages": "x"},
        {"messages": [{"role": "assistant", "content": "a", "parts": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "user", "content": 5, "parts": [{"type": "text", "text": 5}]}]},
        {"messages": [{"role": "user", "content": "a", "parts": [
            {"type": "text", "text": "a"}, {"type": "file", "mediaType": "image/png", "url": "file:///etc/passwd"},
        ]}, {"role": "user", "content": "", "parts": []}]},
    ],
)  # fmt: skip
def test_an_invalid_request_is_refused(encoding: str, body: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(encoding, body)
    assert caught.value.hint


def test_the_page_s_own_form_is_read_by_every_encoding() -> None:
    for encoding in ("vercel", "ag-ui", "lmdeck"):
        assert read(encoding, {"text": "Hi"})[0].text == "Hi"
