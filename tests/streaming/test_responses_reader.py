"""`/v1/responses`: what its events and bodies mean, also where they are incomplete, late or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint_readers import event, read, read_body, read_chunks, reader
from lmdeck import APIError, MalformedStreamError, ServerError, TokenLogprob, Usage
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


def test_a_body_is_read_like_its_stream() -> None:
    check(read_body(ResponsesTranslator(), {**RESPONSE, "timings": TIMINGS}))


def test_a_call_is_known_while_it_is_written_or_run() -> None:
    target = reader(ResponsesTranslator())
    known = []
    for payload in STREAM:
        target.feed(event(payload))
        known.append(target.is_in_call)
    target.finish()
    calls = [index for index, payload in enumerate(STREAM) if payload.get("output_index") in {1, 2}]
    assert [index for index, is_in_call in enumerate(known) if is_in_call] == calls


@pytest.mark.parametrize("output", [None, "It rains.", {"type": "message"}])
def test_a_body_without_output_is_no_answer(output: object) -> None:
    with pytest.raises(MalformedStreamError, match="not an answer of this endpoint"):
        read_body(ResponsesTranslator(), {"output": output})
