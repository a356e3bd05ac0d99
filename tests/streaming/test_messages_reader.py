"""`/v1/messages`: what Anthropic's events and bodies mean, also where they are incomplete, late or of another type."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from endpoint_readers import event, read, read_body, read_chunks, reader
from lmdeck import MalformedStreamError, Usage
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck.messages import ServerCall
from lmdeck.native_events import ServerEvent

START = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3}}}
STOP = {"type": "message_stop"}
IMAGE = {"type": "image", "source": {}}
SEARCH = {"type": "mcp_tool_use", "id": "s1", "name": "search", "server_name": "web", "input": {"q": 1}}
SEARCHED = ServerCall(
    id="s1", name="search", arguments={"q": 1}, provider={"type": "mcp_tool_use", "server_label": "web"}
)


def starts(block: object, index: object = 0) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def adds(kind: str, index: object = 0, **fields: object) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stops(index: object = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ends(reason: str | None = "end_turn") -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 4}}


def tool_use(input_: object, **more: object) -> dict[str, Any]:
    return {"type": "tool_use", "id": "call_1", "name": "find", "input": input_, **more}


def test_a_stream_as_documented() -> None:
    """Each chunk has the event that it was read from; token counts come in two parts."""
    events = [
        START,
        {"type": "ping"},
        starts({"type": "thinking", "thinking": ""}),
        adds("thinking_delta", thinking="Hm."),
        adds("signature_delta", signature="x"),
        stops(),
        starts({"type": "text", "text": ""}, 1),
        adds("text_delta", 1, text="It "),
        adds("text_delta", 1, text="rains."),
        stops(1),
        ends(),
        STOP,
    ]
    reply, chunks = read_chunks(AnthropicTranslator(), *events)
    assert (reply.id, reply.model, reply.content, reply.reasoning, reply.finish_reason) == (
        "msg_1", "m", "It rains.", "Hm.", "stop",
    )  # fmt: skip
    assert reply.usage == Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    null = {"input_tokens": None, "output_tokens": 4, "cache_read_input_tokens": None}  # nothing new
    assert read(AnthropicTranslator(), *events[:-2], ends() | {"usage": null}, STOP).usage == reply.usage
    assert (reply.tool_calls, reply.server_calls, reply.problems) == ([], [], [])
    assert [each.event for each in chunks] == [ServerEvent(str(event["type"]), event) for event in events]
    assert [(each.reasoning, each.content) for each in chunks if each.reasoning or each.content] == [
        ("Hm.", ""), ("", "It "), ("", "rains."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("events", "arguments"),
    [
        ([starts(tool_use({})), adds("input_json_delta", partial_json='{"q"'),
          adds("input_json_delta", partial_json=": 1}"), stops()], {"q": 1}),
        ([starts(tool_use({})), adds("input_json_delta", partial_json=""), stops()], {}),
        ([starts(tool_use({"q": 1})), stops()], {"q": 1}),
        ([starts(tool_use('{"q": 1}')), stops()], {"q": 1}),
        ([starts(tool_use({"q": 2})), adds("input_json_delta", partial_json='{"q": 1}'), stops()], {"q": 1}),
        ([starts(tool_use({"q": 1}), None), stops(None)], {"q": 1}),
        ([starts(tool_use([1])), stops()], {}),
    ],
    ids=["in pieces", "empty", "whole at the start", "whole, as text", "deltas count", "no index", "no object"],
)  # fmt: skip
def test_the_arguments_of_a_streamed_call(events: list[dict[str, Any]], arguments: dict[str, Any]) -> None:
    """They arrive as deltas, or whole when the block starts; a start with both is read from its deltas."""
    reply, chunks = read_chunks(AnthropicTranslator(), *events, ends("tool_use"), STOP)
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("call_1", "find", arguments)]
    assert (reply.finish_reason, reply.problems) == ("tool_calls", [])
    assert [each.tool_call for each in chunks if each.has_tool_call] == reply.tool_calls


def test_the_pieces_of_two_calls_may_alternate() -> None:
    """Each belongs to the block with its index."""
    reply = read(
        AnthropicTranslator(),
        starts(tool_use({})),
        starts(tool_use({}, id="call_2"), 1),
        adds("input_json_delta", 1, partial_json='{"q"'),
        adds("input_json_delta", partial_json='{"q": 1}'),
        adds("input_json_delta", 1, partial_json=": 2}"),
        stops(1),
        stops(),
        ends("tool_use"),
        STOP,
    )
    assert [(call.id, call.arguments) for call in reply.tool_calls] == [("call_1", {"q": 1}), ("call_2", {"q": 2})]
    assert reply.problems == []


def test_a_call_of_the_reply_is_known_until_the_answer_ends() -> None:
    """Its arguments may arrive in one piece after minutes of silence."""
    target = reader(AnthropicTranslator())
    for payload, is_in_call in [
        (START, False),
        (starts(tool_use({})), True),
        (stops(), True),
        (ends("tool_use"), False),
    ]:
        target.feed(event(payload))
        assert target.is_in_call is is_in_call


def test_a_call_that_was_announced_and_did_not_come_is_reported() -> None:
    for reply in (
        read(AnthropicTranslator(), adds("text_delta", text="So."), ends("tool_use"), STOP),
        read_body(AnthropicTranslator(), {"content": "So.", "stop_reason": "tool_use"}),
    ):
        assert (reply.content, reply.finish_reason) == ("So.", "tool_calls")
        assert [problem.code for problem in reply.problems] == ["tool_call_missing"]


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
def test_a_call_of_the_server_is_none_of_the_reply_and_is_known_while_it_runs(kind: str) -> None:
    """The server may be silent until its tool has answered; then the next block starts."""
    target = reader(AnthropicTranslator())
    search = {**SEARCH, "type": kind}
    searched = replace(SEARCHED, provider={"type": kind, "server_label": "web"})
    for payload, is_in_call in [
        (START, False),
        (starts(search), True),
        (starts({"type": "text", "text": "So."}), False),
    ]:
        (chunk,) = target.feed(event(payload))
        assert (target.is_in_call, chunk.event) == (is_in_call, ServerEvent(payload["type"], payload))
    assert target.partial().server_calls == [searched]
    target.feed(event(ends()) + event(STOP))
    assert target.finish() == []
    reply = target.reply()
    assert (reply.content, reply.tool_calls, reply.server_calls) == ("So.", [], [searched])


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (starts({"type": "text", "text": "It rains."}), "It rains."),
        (starts(IMAGE), ""),
        (starts(None), ""),
        (adds("text_delta", text=[{"type": "text", "text": "It "}, {"text": "rains."}]), "It rains."),
        (adds("text_delta", text=5), ""),
        (adds("text_delta", text=""), ""),
        (adds("thinking_delta", thinking=""), ""),
        (adds("citations_delta", citation={}), ""),
        ({"type": "content_block_delta", "index": 0, "delta": "It rains."}, ""),
        ({"type": "message_start", "message": "It rains."}, ""),
    ],
)
def test_an_event_brings_the_text_that_can_be_read(event: dict[str, Any], content: str) -> None:
    reply = read(AnthropicTranslator(), event, adds("text_delta", 1, text="!"), ends(), STOP)
    assert (reply.content, reply.reasoning) == (f"{content}!", "")
    assert (reply.tool_calls, reply.problems) == ([], [])


def test_a_block_may_start_with_its_thinking() -> None:
    block = {"type": "thinking", "thinking": "Hm."}
    reply = read(AnthropicTranslator(), starts(block), adds("text_delta", 1, text="So."), ends(), STOP)
    assert (reply.reasoning, reply.content) == ("Hm.", "So.")


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)  # fmt: skip
def test_the_reason_is_that_of_the_chat_endpoint(reason: str, meaning: str) -> None:
    """This holds for streams, where an event without a reason may come first, and for bodies; unknown reasons are unchanged."""
    streamed = read(AnthropicTranslator(), adds("text_delta", text="So."), ends(None), ends(reason), STOP)
    whole = read_body(AnthropicTranslator(), {"content": "So.", "stop_reason": reason})
    assert (streamed.finish_reason, whole.finish_reason) == (meaning, meaning)
    assert streamed.usage == Usage(completion_tokens=4, total_tokens=4)


def test_a_body_as_documented() -> None:
    """Blocks of text are joined; a call of the server is no call of the reply."""
    content = [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "It "},
        SEARCH,
        IMAGE,
        "no block",
        {"type": "text", "text": "rains."},
        tool_use({"q": 1}),
        tool_use('{"q": 2}', id="call_2"),
    ]
    usage = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5}
    body = {"id": "msg_1", "model": "m", "content": content, "stop_reason": "tool_use", "usage": usage}
    reply = read_body(AnthropicTranslator(), body)
    assert (reply.id, reply.model, reply.content, reply.reasoning, reply.finish_reason) == (
        "msg_1", "m", "It rains.", "Hm.", "tool_calls",
    )  # fmt: skip
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
        ("call_1", "find", {"q": 1}),
        ("call_2", "find", {"q": 2}),
    ]
    assert reply.usage == Usage(prompt_tokens=8, completion_tokens=4, total_tokens=12, cached_tokens=5)
    assert (reply.server_calls, reply.problems) == ([SEARCHED], [])


def test_the_content_of_a_body_may_be_text() -> None:
    reply = read_body(AnthropicTranslator(), {"content": "It rains."})
    assert (reply.content, reply.finish_reason, reply.tool_calls, reply.usage) == ("It rains.", "stop", [], None)


@pytest.mark.parametrize("content", [None, 5, {"text": "It rains."}])
def test_a_body_without_content_is_no_answer(content: object) -> None:
    with pytest.raises(MalformedStreamError, match="not an answer of this endpoint"):
        read_body(AnthropicTranslator(), {"type": "message", "content": content})
