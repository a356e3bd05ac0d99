"""Events of the other endpoints that are rare: what servers leave out, send late or send whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmdeck import APIError, Reply
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.native_chat import NativeTranslator
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator

END = {"type": "message_stop"}


def read(translator: Translator, *events: dict[str, Any]) -> Reply:
    """Read the events of one answer."""
    reader = TranslatingReader(200, {"content-type": "text/event-stream"}, ChatAssembler(), translator)
    for payload in events:
        reader.feed(f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n".encode())
    reader.finish()
    return reader.reply()


def stopped(reason: str | None) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}


def test_the_input_of_a_call_may_come_whole_with_its_start() -> None:
    block = {"type": "tool_use", "id": "call_1", "name": "find", "input": {"q": 1}}
    reply = read(
        AnthropicTranslator(),
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        stopped("tool_use"),
        END,
    )
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("call_1", "find", {"q": 1})]


def test_usage_may_come_before_the_reason_and_thinking_may_be_empty() -> None:
    reply = read(
        AnthropicTranslator(),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "It rains."}},
        stopped(None),
        stopped("end_turn"),
        END,
    )
    assert (reply.content, reply.reasoning, reply.finish_reason) == ("It rains.", "", "stop")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4


def test_an_answer_without_deltas_is_read_from_its_end() -> None:
    output = [{"type": "reasoning", "content": "Hm."}, {"type": "message", "content": "It rains."}]
    reply = read(NativeTranslator(), {"type": "chat.end", "result": {"model_instance_id": "m", "output": output}})
    assert (reply.content, reply.reasoning) == ("It rains.", "Hm.")


@pytest.mark.parametrize(
    ("arguments", "value"), [('{"q": 1}', {"q": 1}), ('{"q": ', {}), ({"q": 1}, {"q": 1}), (None, {})]
)
def test_a_call_of_the_server_has_its_arguments_where_they_can_be_read(arguments: object, value: object) -> None:
    call = {"type": "mcp_call", "id": "mcp_1", "name": "find", "arguments": arguments, "output": "one"}
    message = {"type": "message", "content": [{"type": "output_text", "text": "It is one."}]}
    reply = read(
        ResponsesTranslator(),
        {"type": "response.output_item.added", "output_index": 0, "item": None},
        {"type": "response.completed", "response": {"status": "completed", "output": [call, message]}},
    )
    assert reply.content == "It is one."
    assert [(call.name, call.arguments, call.output) for call in reply.server_calls] == [("find", value, "one")]


@pytest.mark.parametrize("translator", [AnthropicTranslator(), NativeTranslator(), ResponsesTranslator()])
def test_an_event_that_holds_an_error_ends_the_answer_whatever_its_type(translator: Translator) -> None:
    with pytest.raises(APIError, match="out of memory"):
        read(translator, {"type": "engine.failed", "error": {"message": "out of memory"}})


def test_blocks_of_anthropic_may_begin_with_their_text_and_hold_calls_of_the_server() -> None:
    call = {"type": "server_tool_use", "id": "s1", "name": "search", "input": {"q": 1}}
    reply = read(
        AnthropicTranslator(),
        {"type": "content_block_start", "index": 0, "content_block": call},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "It rains."}},
        stopped("end_turn"),
        END,
    )
    assert reply.content == "It rains."
    assert [(call.name, call.arguments) for call in reply.server_calls] == [("search", {"q": 1})]


@pytest.mark.parametrize(("written", "reason"), [(4, "length"), (3, "stop")])
def test_an_end_without_output_keeps_what_the_deltas_brought(written: int, reason: str) -> None:
    """And a native answer that is as long as its limit was cut off by it."""
    result = {"model_instance_id": "m", "stats": {"total_output_tokens": written}}
    reply = read(
        NativeTranslator(4),
        {"type": "message.delta", "content": "It rains."},
        {"type": "chat.end", "result": result},
    )
    assert (reply.content, reply.finish_reason) == ("It rains.", reason)
