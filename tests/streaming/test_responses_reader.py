"""`/v1/responses`: what its events and bodies mean, also where they are incomplete, late or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint_readers import event, read, read_body, read_chunks, reader
from lmdeck import APIError, MalformedStreamError, ModelLoadError, ServerError, TokenLogprob, Usage
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck.messages import ServerCall
from lmdeck.native_events import ServerEvent
from lmdeck.stats import Stats

LOGPROB = {"token": "It", "logprob": -0.5}
REASONING = {"type": "reasoning", "id": "rs_1", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find", "arguments": '{"q": 1}'}
SEARCH = {
    "type": "mcp_call", "id": "mcp_1", "name": "search", "server_label": "web", "arguments": '{"q": 2}', "output": "two",
}  # fmt: skip
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "content": [{"type": "output_text", "text": "It rains.", "logprobs": [LOGPROB]}],
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "model": "m",
    "status": "completed",
    "output": [REASONING, CALL, SEARCH, MESSAGE],
    "usage": {
        "input_tokens": 3, "output_tokens": 4, "total_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 1},
    },
}  # fmt: skip
TIMINGS = {"prompt_ms": 500, "predicted_ms": 2000, "predicted_per_second": 2}  # llama.cpp
SEARCHED = ServerCall(
    id="mcp_1", name="search", arguments={"q": 2}, output="two", provider={"type": "mcp", "server_label": "web"}
)


def added(item: object, index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(item: object, index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def of(kind: str, **fields: object) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": 0, **fields}


def end(*output: object, kind: str = "completed", **fields: object) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"status": kind, "output": list(output), **fields}}


def arguments(event: dict[str, Any], index: int = 1) -> dict[str, Any]:
    return {"output_index": index, **event, "type": f"response.function_call_arguments.{event['type']}"}


STREAM = [
    {"type": "response.created", "response": {"id": "resp_1", "model": "m"}},
    {"type": "response.in_progress"},
    added({**REASONING, "content": []}),
    of("reasoning_text.delta", delta="Hm."),
    of("reasoning_text.done", text="Hm."),
    done(REASONING),
    added({**CALL, "arguments": ""}, 1),
    arguments({"type": "delta", "delta": '{"q"'}),
    arguments({"type": "delta", "delta": ": 1}"}),
    arguments({"type": "done", "arguments": '{"q": 1}'}),
    done(CALL, 1),
    added({**SEARCH, "arguments": "", "output": None}, 2),
    arguments({"type": "delta", "delta": '{"q": 2}'}, 2),
    done(SEARCH, 2),
    added({**MESSAGE, "content": []}, 3),
    {"type": "response.content_part.added", "output_index": 3, "part": {"type": "output_text", "text": ""}},
    {"type": "response.output_text.delta", "output_index": 3, "delta": "It rains.", "logprobs": [LOGPROB]},
    {"type": "response.output_text.done", "output_index": 3, "text": "It rains."},
    {"type": "response.content_part.done", "output_index": 3, "part": MESSAGE["content"][0]},
    done(MESSAGE, 3),
    {"type": "response.completed", "response": RESPONSE, "timings": TIMINGS},
]


def check(reply: Any) -> None:
    """Check that a reply is the one that `RESPONSE` means."""
    assert (reply.id, reply.model, reply.content, reply.reasoning, reply.finish_reason) == (
        "resp_1", "m", "It rains.", "Hm.", "tool_calls",
    )  # fmt: skip
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("call_1", "find", {"q": 1})]
    assert reply.usage == Usage(
        prompt_tokens=3, completion_tokens=4, total_tokens=7, cached_tokens=2, reasoning_tokens=1
    )
    assert reply.stats == Stats(time_to_first_token=0.5, generation_time=2.0, tokens_per_second=2.0)
    assert reply.logprobs == [TokenLogprob(token="It", logprob=-0.5)]
    assert (reply.server_calls, reply.problems) == ([SEARCHED], [])


def test_a_stream_as_documented() -> None:
    """Every chunk has its event, and each text and call comes once, however often events repeat it."""
    reply, chunks = read_chunks(ResponsesTranslator(), *STREAM)
    check(reply)
    given = [each.event for each in chunks if each.event is not None]
    assert given == [ServerEvent(str(event["type"]), event) for event in STREAM]
    assert "".join(each.content for each in chunks) == "It rains."
    assert "".join(each.reasoning for each in chunks) == "Hm."
    assert [each.tool_call for each in chunks if each.has_tool_call] == reply.tool_calls
    pieces = [each.tool_call_delta for each in chunks if each.tool_call_delta is not None]
    assert [(piece.name, piece.arguments) for piece in pieces] == [("find", ""), ("", '{"q"'), ("", ": 1}")]


def test_a_body_is_read_like_its_stream() -> None:
    check(read_body(ResponsesTranslator(), {**RESPONSE, "timings": TIMINGS}))


def test_a_call_of_the_server_is_known_while_it_runs() -> None:
    """The server may be silent until its tool has answered."""
    events = [event for event in STREAM if event.get("output_index") != 1]
    target, running = reader(ResponsesTranslator()), []
    for payload in events:
        target.feed(event(payload))
        running += [payload] if target.is_in_call else []
    assert running == [payload for payload in events if payload.get("output_index") == 2][:-1]


@pytest.mark.parametrize("output", [None, "It rains.", {"type": "message"}])
def test_a_body_without_output_is_no_answer(output: object) -> None:
    with pytest.raises(MalformedStreamError, match="not an answer of this endpoint"):
        read_body(ResponsesTranslator(), {"output": output})


@pytest.mark.parametrize(
    ("events", "content"),
    [
        ([of("output_text.delta", delta="It "), of("output_text.delta", delta="rains."),
          of("output_text.done", text="It rains.")], "It rains."),
        ([of("output_text.done", text="It rains.")], "It rains."),
        ([of("output_text.done")], ""),
        ([of("output_text.delta", delta=5)], ""),
        ([of("output_text.delta", delta=[{"type": "output_text", "text": "It rains."}])], "It rains."),
        ([of("output_text.annotation", text="It rains.")], ""),
        ([of("refusal.delta", delta="No.")], "No."),
        ([of("refusal.done", refusal="No.")], "No."),
        ([of("content_part.done", part={"type": "output_text", "text": "It rains."})], "It rains."),
        ([of("content_part.done", part={"type": "refusal", "refusal": "No."})], "No."),
        ([of("content_part.done", part={"type": "image", "text": "x"})], ""),
        ([of("content_part.done", part="It rains.")], ""),
        ([of("content_part.done")], ""),
        ([of("output_text.delta", delta="It snows."), done(MESSAGE)], "It snows."),
        ([done({"type": "message", "content": "It rains."})], "It rains."),
        ([done({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]})], "No."),
        ([done({"type": "message", "content": None})], ""),
        ([done("It rains.")], ""),
        ([{"type": "response.output_text.delta", "delta": "It snows."}, done(MESSAGE)], "It snows."),
    ],
)  # fmt: skip
def test_the_text_of_an_item_comes_once(events: list[dict[str, Any]], content: str) -> None:
    """Text is taken from deltas, else from `done`, the finished part or item; without a place it covers all items."""
    reply = read(ResponsesTranslator(), of("reasoning.delta", output_index=9, delta="Hm."), *events, end())
    assert (reply.reasoning, reply.content, reply.tool_calls) == ("Hm.", content, [])


@pytest.mark.parametrize(
    ("item", "reasoning"),
    [
        (REASONING, "Hm."),
        ({"type": "reasoning", "content": "Hm."}, "Hm."),
        ({"type": "reasoning", "content": [], "summary": [{"type": "summary_text", "text": "So."}]}, "So."),
        ({"type": "reasoning", "content": [{"text": "Hm."}], "summary": [{"text": "So."}]}, "Hm."),
        ({"type": "reasoning"}, ""),
    ],
)
def test_the_reasoning_of_an_item_is_its_content_else_its_summary(item: dict[str, Any], reasoning: str) -> None:
    for reply in (
        read(ResponsesTranslator(), done(item), done(MESSAGE, 1), end(item, MESSAGE)),
        read(ResponsesTranslator(), end(item, MESSAGE)),
        read_body(ResponsesTranslator(), {"output": [item, MESSAGE]}),
    ):
        assert (reply.reasoning, reply.content) == (reasoning, "It rains.")


@pytest.mark.parametrize("kind", ["reasoning_text", "reasoning_summary_text", "reasoning"])
def test_reasoning_has_three_names(kind: str) -> None:
    """Its `done` may have no delta before it."""
    for events in ([of(f"{kind}.delta", delta="Hm.")], [of(f"{kind}.done", text="Hm.")]):
        reply = read(ResponsesTranslator(), *events, done(MESSAGE, 1), end())
        assert (reply.reasoning, reply.content) == ("Hm.", "It rains.")


@pytest.mark.parametrize(
    "events",
    [
        [added({**CALL, "arguments": ""}), arguments({"type": "delta", "delta": '{"q": 1}'}, 0), done(CALL)],
        [added({**CALL, "arguments": ""}), arguments({"type": "done", "arguments": '{"q": 1}'}, 0), done(CALL)],
        [added(CALL), done(CALL)],
        [added(CALL), arguments({"type": "done", "arguments": '{"q": 1}'}, 0)],
        [added({**CALL, "arguments": ""}), arguments({"type": "delta", "delta": ""}, 0), done(CALL)],
        [added({**CALL, "arguments": {"q": 1}})],
        [done(CALL)],
        [],
    ],
)
def test_a_call_comes_once(events: list[dict[str, Any]]) -> None:
    """Its arguments come from the first source; an end with it adds it only if no event did."""
    reply, chunks = read_chunks(ResponsesTranslator(), *events, end(CALL))
    assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("call_1", "find", {"q": 1})]
    assert [each.tool_call for each in chunks if each.has_tool_call] == reply.tool_calls
    assert (reply.finish_reason, reply.problems) == ("tool_calls", [])


def test_a_call_without_arguments_and_without_an_id_of_its_own() -> None:
    """The item's id stands in."""
    item = {"type": "function_call", "id": "fc_1", "name": "look"}
    for reply in (
        read(ResponsesTranslator(), added(item), done(item), end(item)),
        read_body(ResponsesTranslator(), {"output": [item]}),
    ):
        assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [("fc_1", "look", {})]


@pytest.mark.parametrize(
    ("given", "value"),
    [('{"q": 1}', {"q": 1}), ({"q": 1}, {"q": 1}), ('{"q": ', {}), ("[1]", {}), ("[" * 5000, {}), (None, {}), (5, {})],
)
def test_a_call_of_the_server_has_its_arguments_where_they_can_be_read(given: object, value: object) -> None:
    """Arguments that are nested too deeply do not cost the answer."""
    call = {**SEARCH, "arguments": given, "output": [{"type": "text", "text": "two"}], "error": {"code": 5}}
    for reply in (
        read(ResponsesTranslator(), added(call), done(call), end(call, MESSAGE)),
        read_body(ResponsesTranslator(), {"output": [call, MESSAGE]}),
    ):
        assert reply.content == "It rains."
        assert [(each.arguments, each.output, each.error) for each in reply.server_calls] == [
            (value, "two", "{'code': 5}")
        ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "completed", "incomplete_details": {"reason": "max_output_tokens"}}, "stop"),
        ({}, "stop"),
        ({"status": "incomplete"}, "length"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_the_reason_is_that_of_the_chat_endpoint(fields: dict[str, Any], reason: str) -> None:
    response = {"output": [MESSAGE], **fields}
    streamed = read(ResponsesTranslator(), {"type": "response.incomplete", "response": response})
    assert (streamed.finish_reason, read_body(ResponsesTranslator(), response).finish_reason) == (reason, reason)


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ({"type": "error", "message": "Out of memory", "code": None}, ModelLoadError, "Out of memory"),
        ({"type": "response.failed", "response": {"error": {"message": "It broke"}}}, ServerError, "It broke"),
        ({"type": "response.failed", "response": {"error": None}}, ServerError, "The response failed"),
        ({"type": "response.failed", "response": "none"}, ServerError, "The response failed"),
    ],
)
def test_a_failed_response_is_an_error_with_the_text_so_far(
    failure: dict[str, Any], kind: type[APIError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        read(ResponsesTranslator(), of("output_text.delta", delta="It rains."), failure)
    assert caught.value.partial is not None
    assert caught.value.partial.content == "It rains."
