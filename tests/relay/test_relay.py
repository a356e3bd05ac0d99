"""`lmdeck.relay` without I/O: requests in and out, bytes in and out, however they are cut; routes; errors."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lmdeck import (
    ConfigurationError,
    ConnectionLostError,
    ContextLengthError,
    EmptyReplyError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
    ToolCallParseError,
    UnknownToolError,
)
from lmdeck.relay import Kind, RelayRequest, error_answer, route_of

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
HEAD: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "x_own": 1}
STREAMED = {"content-type": "text/event-stream"}


def event(value: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    return event({**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def request(kind: Kind, **body: Any) -> RelayRequest:
    return RelayRequest(kind, json.dumps({"model": "m", **body}).encode())


def chat(**body: Any) -> RelayRequest:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    return request("chat", **{"messages": [{"role": "user", "content": "Hi"}], "tools": [tool], "stream": True, **body})


def relayed(asked: RelayRequest, *pieces: bytes, continues: bool = True) -> bytes:
    """Read pieces of an answer, by `continue_text` where it can, and return all that is written."""
    reader = asked.reader(200, STREAMED)
    out = []
    for piece in pieces:
        written = reader.continue_text(piece) if continues else None
        if written is None:
            reader.feed(piece)
            written = reader.take()
        out.append(written)
    reader.finish()
    return b"".join([*out, reader.take()])


def values(written: bytes) -> list[Any]:
    """Decode what is written; comments are left out."""
    lines = [line.removeprefix("data: ") for line in written.decode().splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


CHAT = (
    chunk({"role": "assistant", "content": "Grüße 🙂 "})
    + b": comment\r\n\r\n"
    + chunk({"content": CALL[:9]})
    + chunk({"content": CALL[9:]})
    + chunk({}, "stop", stats={"tokens_per_second": 3})
    + event({**HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
    + b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_the_result_does_not_depend_on_how_bytes_are_split(size: int) -> None:
    asked = chat()
    pieces = [CHAT[start : start + size] for start in range(0, len(CHAT), size)]
    *said, last, done = values(relayed(asked, *pieces))
    calls = [call for each in said for call in each["choices"][0]["delta"].get("tool_calls", ())]
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in said).strip() == "Grüße 🙂"
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Paris"}]
    assert (last["choices"][0]["finish_reason"], last["usage"]["total_tokens"], done) == ("tool_calls", 3, "[DONE]")
    assert last["stats"] == {"tokens_per_second": 3}
    assert all(each["x_own"] == 1 for each in said)


def test_a_chunk_that_needs_no_repair_is_forwarded_byte_for_byte() -> None:
    choices = b'"choices":[{"index":0,"delta":{"content":"\\u00e9"}}]'
    odd = b'data: {"id":"c1", "object":"chat.completion.chunk","created":1,"model":"m",%s}\n\n' % choices
    assert relayed(chat(), odd, chunk({}, "stop")).startswith(odd)


WORDS = [
    "content",
    "a",
    "a",
    "id",
    "m",
    "assistant",
    "0",
    '"',
    "\\",
    "{}",
    "é",
    "\u2028",
    "\U0001f600",
    " b\n\n",
    "null",
    "index",
]


@pytest.mark.parametrize("more", [{}, {"usage": None}, {"timings": {"content": "a"}}])
def test_equal_chunks_with_other_texts_are_forwarded_byte_for_byte(more: dict[str, Any]) -> None:
    """The text may be a name or a value of the chunk itself."""
    chunks = [chunk({"content": word}, **more) for word in WORDS]
    assert relayed(chat(), *chunks, chunk({}, "stop")).startswith(b"".join(chunks))


@pytest.mark.parametrize("size", [1, 4, 30])
@pytest.mark.parametrize("start", ["", "Well. ", "\n\n", "<think>\nHm.\n</think>\n"])
def test_text_that_only_continues_is_written_like_any_other(start: str, size: int) -> None:
    """Text with markup in it, held back or changed is written in the same way."""
    text = f'{start}A list: 1 < 2 [TOOL], "é"\n\n{CALL} and more {CALL} <|im_end|> end'
    asked, texts = chat(), [text[at : at + size] for at in range(0, len(text), size)]
    pieces = [*(chunk({"content": each}) for each in texts), chunk({}, "stop")]
    written = [re.sub(rb'"id":"\w{9}"', b"", relayed(asked, *pieces, continues=each)) for each in (True, False)]
    assert written[0] == written[1]


def test_what_does_not_only_continue_the_text_is_not_read_as_such() -> None:
    reader = chat().reader(200, STREAMED)
    for piece in (chunk({"content": "a"}), chunk({"content": "b"})):
        assert reader.continue_text(piece) is None
        reader.feed(piece)
    reader.take()
    one = chunk({"content": "c"})
    others = [
        one + one,
        one[:-1],
        one[3:],
        one.replace(b"data", b"tada"),
        b"event: ping\n" + one,
        chunk({"content": ""}),
    ]
    others += [chunk({"content": "c"}, "stop"), chunk({"reasoning_content": "c"}), chunk({"content": "c", "x": 1}), b""]
    assert [reader.continue_text(each) for each in others] == [None] * len(others)
    assert reader.continue_text(one) == one
    reader.feed(one[:9])
    assert reader.continue_text(one) is None


def test_text_is_forwarded_before_the_next_bytes_arrive() -> None:
    reader = chat().reader(200, STREAMED)
    reader.feed(chunk({"content": "Hel"}))
    assert values(reader.take())[0]["choices"][0]["delta"]["content"] == "Hel"


def test_a_complete_answer_becomes_a_stream_and_the_reverse() -> None:
    message = {"role": "assistant", "content": f"Look: {CALL}", "annotations": []}
    whole = {
        **HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    *said, last, done = values(relayed(chat(), json.dumps(whole).encode()))
    assert {each["object"] for each in [*said, last]} == {"chat.completion.chunk"}
    assert (last["choices"][0]["finish_reason"], done) == ("tool_calls", "[DONE]")
    body = json.loads(relayed(chat(stream=False), CHAT))
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "Grüße 🙂"
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert body["usage"]["total_tokens"] == 3


def test_probabilities_and_unknown_fields_of_a_whole_answer_stay() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": []}]}
    message = {"role": "assistant", "content": "Hi", "x_message": 1}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs, "x_choice": 2}
    body = json.loads(relayed(chat(stream=False), json.dumps({**HEAD, "choices": [choice], "x_body": 3}).encode()))
    assert body["choices"][0]["logprobs"] == logprobs
    assert (body["choices"][0]["message"]["x_message"], body["choices"][0]["x_choice"], body["x_body"]) == (1, 2, 3)


def test_calls_in_both_forms_count_once() -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    native = {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]}
    *said, last, _ = values(relayed(chat(), chunk({"content": CALL}), chunk(native), chunk({}, "tool_calls")))
    assert sum(len(each["choices"][0]["delta"].get("tool_calls", ())) for each in said) == 1
    assert last["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (chunk({"content": "Hel"}), IncompleteStreamError),
        (chunk({}, "stop"), EmptyReplyError),
        (chunk({"content": "Hel"}) + event({"error": {"message": "Channel Error"}}), LMStudioError),
        (b"<html>login</html>", MalformedStreamError),
    ],
)
def test_an_incomplete_answer_raises(answer: bytes, kind: type[LMStudioError]) -> None:
    with pytest.raises(kind):
        relayed(chat(), answer)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("text", ["", "Let me look."])
def test_a_call_that_cannot_be_read_is_an_error(stream: bool, text: str) -> None:
    """It is not an answer that looks as if the model wanted nothing."""
    function = {"name": "get_weather", "arguments": "nonsense"}
    lost = {"content": text, "tool_calls": [{"index": 0, "id": "1", "type": "function", "function": function}]}
    with pytest.raises(ToolCallParseError):
        relayed(chat(stream=stream), chunk(lost), chunk({}, "tool_calls"))


def test_a_call_that_the_limit_cut_ends_with_length() -> None:
    """It does so behind a whole call, too."""
    first = {"index": 0, "id": "1", "function": {"name": "get_weather", "arguments": "{}"}}
    second = {"index": 1, "id": "2", "function": {"name": "get_weather", "arguments": '{"city": "Pa'}}
    *said, last, _ = values(relayed(chat(), chunk({"tool_calls": [first, second]}), chunk({}, "length")))
    assert sum(len(each["choices"][0]["delta"].get("tool_calls", ())) for each in said) == 1
    assert last["choices"][0]["finish_reason"] == "length"


def test_unknown_blocks_of_messages_pass_at_their_new_places() -> None:
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    events = [
        {
            "type": "message_start",
            "message": {"id": "m1", "type": "message", "role": "assistant", "model": "m", "x_own": 1},
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"Look {CALL}"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": found},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "Found."}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    asked = request(
        "messages", max_tokens=9, stream=True, messages=[{"role": "user", "content": "Hi"}],
        tools=[{"name": "get_weather", "input_schema": SCHEMA}],
    )  # fmt: skip
    written = values(relayed(asked, *(event(each, each["type"]) for each in events)))
    assert written[0]["message"]["x_own"] == 1
    opened = [
        (each["index"], each["content_block"]["type"]) for each in written if each["type"] == "content_block_start"
    ]
    assert [index for index, _ in opened] == list(range(len(opened)))
    assert {"tool_use", "web_search_tool_result", "text"} <= {kind for _, kind in opened}
    assert [each["delta"]["stop_reason"] for each in written if each["type"] == "message_delta"] == ["tool_use"]


def test_unknown_items_of_a_response_pass_at_their_new_places() -> None:
    search = {"id": "ws", "type": "web_search_call", "status": "completed"}
    response = {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "x_own": 1}
    text = {"item_id": "msg", "output_index": 1, "content_index": 0}
    ended = {**response, "status": "completed", "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": search},
        {"type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws"},
        {"type": "response.output_item.done", "output_index": 0, "item": search},
        {"type": "response.output_text.delta", **text, "delta": f"Look {CALL}"},
        {"type": "response.output_text.done", **text, "text": f"Look {CALL}"},
        {"type": "response.completed", "response": {**ended, "output": [search]}},
    ]
    tool = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
    asked = request("responses", input="Hi", stream=True, tools=[tool])
    written = values(relayed(asked, *(event(each, each["type"]) for each in events)))
    assert [each["sequence_number"] for each in written] == list(range(len(written)))
    last = written[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["web_search_call", "message", "function_call"]
    assert (last["x_own"], last["usage"]["total_tokens"], last["status"]) == (1, 2, "completed")
    assert "response.web_search_call.searching" in [each["type"] for each in written]


@pytest.mark.parametrize(
    ("url", "root", "path", "kind"),
    [
        ("http://h:1/v1/chat/completions", "http://h:1", "/v1/chat/completions", "chat"),
        ("http://h:1//v1//chat/completions", "http://h:1", "/v1/chat/completions", "chat"),
        ("http://h:1/chat/completions", "http://h:1", "/v1/chat/completions", "chat"),
        ("http://h:1/api/v1/chat/completions", "http://h:1", "/v1/chat/completions", "chat"),
        ("http://h:1/api/v0/chat/completions", "http://h:1", "/api/v0/chat/completions", "chat"),
        ("https://h/proxy/lm/v1/messages?beta=true", "https://h/proxy/lm", "/v1/messages?beta=true", "messages"),
        ("http://h:1/v1/responses", "http://h:1", "/v1/responses", "responses"),
        ("http://h:1/v1/responses/resp_1", "http://h:1", "/v1/responses/resp_1", "other"),
        ("http://h:1/api/v1/chat", "http://h:1", "/api/v1/chat", "other"),
        ("http://h:1", "http://h:1", "/", "other"),
    ],
)
def test_every_form_of_an_address_means_its_endpoint(url: str, root: str, path: str, kind: str) -> None:
    route = route_of("POST", url)
    assert (route.root, route.path, route.kind) == (root, path, kind)
    assert route_of("GET", url).kind == "other"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ContextLengthError("too long", status=200), 400),
        (RateLimitError("slow", status=429, retry_after=2.0), 429),
        (ServerError("no", status=500), 500),
        (ServerUnreachableError("nobody"), 503),
        (RequestTimeoutError("late", phase="idle", seconds=1.0), 504),
        (ConnectionLostError("gone"), 502),
        (IncompleteStreamError("cut"), 502),
        (EmptyReplyError("empty"), 502),
        (ConfigurationError("wrong"), 400),
        (UnknownToolError("which?"), 400),
    ],
)
@pytest.mark.parametrize("kind", ["chat", "messages"])
def test_an_error_has_a_status_its_words_and_its_hint(error: LMStudioError, status: int, kind: Kind) -> None:
    answer = error_answer(kind, error)
    said = json.loads(answer.body)["error"]
    assert answer.status == status
    assert said["message"] == f"{error.message} {error.hint}"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers.get("retry-after") == ("2" if status == 429 else None)


def test_rules_that_are_off_change_nothing() -> None:
    messages = [{"role": "developer", "content": None}]
    body = json.dumps({"model": "m", "messages": messages, "response_format": {"type": "json_object"}}).encode()
    asked = RelayRequest("chat", body, without_rules=("developer_role", "null_content", "json_object"))
    assert (asked.problems, asked.body["messages"]) == ([], messages)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="JSON"):
        RelayRequest("chat", body)


@pytest.mark.parametrize(
    ("choice", "sent", "tools"),
    [
        ("any", "required", 2),
        ({"type": "any"}, "required", 2),
        ({"type": "function", "function": {"name": "b"}}, "required", 1),
        ({"type": "function", "name": "b"}, "required", 1),
        ("b", "required", 1),
        ("none", "none", 2),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "b"}}]}},
            "auto",
            1,
        ),
    ],
)
def test_every_form_of_a_tool_choice_is_understood(choice: Any, sent: str, tools: int) -> None:
    offered = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": []}}}
        for name in "ab"
    ]
    asked = request("chat", messages=[{"role": "user", "content": "Hi"}], tools=offered, tool_choice=choice)
    assert (asked.body["tool_choice"], len(asked.body["tools"])) == (sent, tools)
    assert asked.body["tools"][0]["function"]["parameters"]["properties"] == {}
