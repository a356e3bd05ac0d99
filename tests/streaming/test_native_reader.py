"""`/api/v1/chat`: what LM Studio's own events and bodies mean, also where they are incomplete or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint_readers import event, read, read_body, read_chunks, reader
from lmdeck import MalformedStreamError, Usage
from lmdeck._streaming.native_chat import NativeTranslator
from lmdeck.messages import ServerCall
from lmdeck.native_events import (
    ChatEnd,
    ChatStart,
    MessageDelta,
    ReasoningDelta,
    ServerEvent,
    ToolCallArguments,
    ToolCallFailure,
    ToolCallStart,
    ToolCallSuccess,
)
from lmdeck.stats import Stats

PLUGIN = {"type": "plugin", "plugin_id": "web"}
FOUND = {"tool": "find", "arguments": {"q": 1}, "output": "1", "provider_info": PLUGIN}
INVALID = {"reason": "No such tool.", "metadata": {"type": "invalid_name", "tool_name": "fund", "arguments": {"q": 2}}}
CALLS = [
    ServerCall(name="find", arguments={"q": 1}, output="1", provider=PLUGIN),
    ServerCall(name="fund", arguments={"q": 2}, error="No such tool."),
]
STATS = {
    "input_tokens": 3, "total_output_tokens": 4, "reasoning_output_tokens": 1, "tokens_per_second": 9.5,
    "time_to_first_token_seconds": 0.5, "model_load_time_seconds": 2.5,
}  # fmt: skip
RESULT: dict[str, Any] = {
    "model_instance_id": "m",
    "response_id": "resp_1",
    "output": [
        {"type": "reasoning", "content": "Hm."},
        {"type": "tool_call", **FOUND},
        {"type": "invalid_tool_call", **INVALID},
        {"type": ["odd"]},
        {"type": "message", "content": "It "},
        {"type": "message", "content": "rains."},
    ],
    "stats": STATS,
}
USAGE = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7, reasoning_tokens=1)
FIGURES = Stats(tokens_per_second=9.5, time_to_first_token=0.5, model_load_time=2.5)


def says(text: object) -> dict[str, Any]:
    return {"type": "message.delta", "content": text}


def end(**result: Any) -> dict[str, Any]:
    return {"type": "chat.end", "result": result}


def test_a_stream_as_documented() -> None:
    """Each chunk has its typed event; what came as deltas is not read again from the end."""
    events: list[dict[str, Any]] = [
        {"type": "chat.start", "model_instance_id": "m"},
        {"type": "reasoning.delta", "content": "Hm."},
        {"type": "tool_call.start", "tool": "find", "provider_info": PLUGIN},
        {"type": "tool_call.arguments", "tool": "find", "arguments": {"q": 1}, "provider_info": PLUGIN},
        {"type": "tool_call.success", **FOUND},
        {"type": "tool_call.failure", **INVALID},
        says("It "),
        says("rains."),
        {"type": "chat.weather", "sun": True},
        end(**RESULT),
    ]
    reply, chunks = read_chunks(NativeTranslator(), *events)
    assert (reply.id, reply.model, reply.content, reply.reasoning, reply.finish_reason) == (
        "resp_1", "m", "It rains.", "Hm.", "stop",
    )  # fmt: skip
    assert (reply.usage, reply.stats, reply.server_calls, reply.problems) == (USAGE, FIGURES, CALLS, [])
    assert [each.event for each in chunks] == [
        ChatStart("m"),
        ReasoningDelta("Hm."),
        ToolCallStart("find", PLUGIN),
        ToolCallArguments("find", {"q": 1}, PLUGIN),
        ToolCallSuccess("find", {"q": 1}, "1", PLUGIN),
        ToolCallFailure(INVALID["reason"], INVALID["metadata"]),
        MessageDelta("It "),
        MessageDelta("rains."),
        ServerEvent("chat.weather", {"type": "chat.weather", "sun": True}),
        ChatEnd(RESULT),
    ]
    assert [(each.reasoning, each.content) for each in chunks if each.reasoning or each.content] == [
        ("Hm.", ""), ("", "It "), ("", "rains."),
    ]  # fmt: skip


def test_a_body_is_read_like_its_stream() -> None:
    reply = read_body(NativeTranslator(), RESULT)
    assert (reply.id, reply.model, reply.content, reply.reasoning, reply.finish_reason) == (
        "resp_1", "m", "It rains.", "Hm.", "stop",
    )  # fmt: skip
    assert (reply.usage, reply.stats, reply.server_calls, reply.problems) == (USAGE, FIGURES, CALLS, [])


@pytest.mark.parametrize("output", [None, "It rains.", {"type": "message", "content": "It rains."}])
def test_a_body_without_output_is_no_answer(output: object) -> None:
    with pytest.raises(MalformedStreamError, match="not an answer of this endpoint"):
        read_body(NativeTranslator(), {"output": output})


@pytest.mark.parametrize(
    ("events", "reasoning", "content"),
    [
        ([end(**RESULT)], "Hm.", "It rains."),
        ([says("It snows."), end(**RESULT)], "Hm.", "It snows."),
        ([{"type": "reasoning.delta", "content": "Oh."}, end(**RESULT)], "Oh.", "It rains."),
        ([{"type": "reasoning.delta", "content": ""}, says(""), end(**RESULT)], "Hm.", "It rains."),
        ([says(5), says([{"type": "text", "text": "It snows."}]), end()], "", "It snows."),
        ([says("It snows."), {"type": "chat.end", "result": None}], "", "It snows."),
    ],
)
def test_the_end_adds_what_no_delta_brought(events: list[dict[str, Any]], reasoning: str, content: str) -> None:
    reply = read(NativeTranslator(), *events)
    assert (reply.reasoning, reply.content, reply.finish_reason) == (reasoning, content, "stop")


def test_calls_that_events_brought_stay_where_the_end_has_no_output() -> None:
    """The call is known while it runs; the server may be silent until then."""
    target = reader(NativeTranslator())
    for payload, is_in_call in [
        ({"type": "tool_call.start", "tool": "find"}, True),
        ({"type": "tool_call.arguments", "tool": "find"}, True),
        ({"type": "tool_call.success", **FOUND}, False),
        ({"type": "tool_call.start", "tool": "fund"}, True),
        ({"type": "tool_call.failure", **INVALID}, False),
    ]:
        target.feed(event(payload))
        assert target.is_in_call is is_in_call
    assert target.partial().server_calls == CALLS
    target.feed(event(says("So.")) + event(end()))
    target.finish()
    assert target.reply().server_calls == CALLS


@pytest.mark.parametrize(
    ("failure", "call"),
    [
        ({}, ServerCall(name="", error="the call was invalid")),
        ({"metadata": {"type": "invalid_name"}}, ServerCall(name="", error="invalid_name")),
        ({"reason": "No.", "metadata": [5]}, ServerCall(name="", error="No.")),
        ({"metadata": {"tool_name": "f", "provider_info": PLUGIN}}, ServerCall(
            name="f", provider=PLUGIN, error="the call was invalid")),
    ],
)  # fmt: skip
def test_a_failed_call_has_a_reason(failure: dict[str, Any], call: ServerCall) -> None:
    streamed = read(NativeTranslator(), {"type": "tool_call.failure", **failure}, says("So."), end())
    output = [{"type": "invalid_tool_call", **failure}, {"type": "message", "content": "So."}]
    assert streamed.server_calls == read_body(NativeTranslator(), {"output": output}).server_calls == [call]


@pytest.mark.parametrize(
    ("limit", "stats", "reason"),
    [
        (4, {"total_output_tokens": 4}, "length"),
        (4, {"total_output_tokens": 3}, "stop"),
        (4, {"total_output_tokens": "4"}, "stop"),
        (4, {}, "stop"),
        (4, None, "stop"),
        (None, {"total_output_tokens": 4}, "stop"),
    ],
)
def test_an_answer_as_long_as_its_limit_was_cut_off(limit: int | None, stats: object, reason: str) -> None:
    """LM Studio does not report the reason on this endpoint."""
    streamed = read(NativeTranslator(limit), says("It rains."), end(stats=stats))
    output = [{"type": "message", "content": "It rains."}]
    whole = read_body(NativeTranslator(limit), {"output": output, "stats": stats})
    assert (streamed.finish_reason, whole.finish_reason) == (reason, reason)
    assert (streamed.content, streamed.stats) == ("It rains.", Stats())
