"""The server over a real socket, with a scripted model."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import pytest

from lmdeck._encoders.backend_events import Finished
from lmdeck._incoming import disconnect
from lmdeck.errors import ConfigurationError
from lmdeck.server.app import create_app
from lmdeck.server.backend import BackendError
from lmdeck.server.requests import body as requests
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.server.tool_use import DefaultToolUse
from loopback import PATIENCE
from wire_tools import KEY, USER, Parrot, ask, asking, chat, eventually, post

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = '[TOOL_REQUEST]{"name": "get_weather", "arguments": {"city": "Paris"}}[END_TOOL_REQUEST]'
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def test_openai_listing(url: str) -> None:
    body = ask(url, "GET", "/v1/models").json
    assert body["object"] == "list"
    assert body["data"][0] == {"id": KEY, "object": "model", "owned_by": "organization_owner"}


def test_v0_listing_shows_what_is_loaded(url: str) -> None:
    loaded, other = ask(url, "GET", "/api/v0/models").json["data"]
    assert (loaded["state"], loaded["loaded_context_length"], loaded["arch"]) == ("loaded", 2048, "bird")
    assert (other["state"], other["type"]) == ("not-loaded", "embeddings")
    assert "loaded_context_length" not in other
    assert ask(url, "GET", f"/api/v0/models/{KEY}").json == loaded


def test_native_listing(url: str) -> None:
    model, embedding = ask(url, "GET", "/api/v1/models").json["models"]
    assert model["loaded_instances"] == [{"id": KEY, "config": {"context_length": 2048, "parallel": 1}}]
    assert model["capabilities"] == {"vision": False, "trained_for_tool_use": False}
    assert embedding["type"] == "embedding"
    assert not {"architecture", "capabilities", "description"} & embedding.keys()


@pytest.mark.parametrize("path", ["/v1/models/nope", "/api/v0/models/nope"])
def test_an_unknown_model_is_refused_with_the_available_ones(url: str, path: str) -> None:
    answer = ask(url, "GET", path)
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert KEY in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/v1/chat/completions"),
        ("GET", "/v1/models/"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/v1/embedding"),
    ],
)
def test_an_unknown_endpoint_is_answered_with_200_as_lm_studio_does(url: str, method: str, path: str) -> None:
    answer = ask(url, method, path)
    assert answer.status == 200
    assert answer.json == {"error": f"Unexpected endpoint or method. ({method} {path})"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v0/chat/completions"])
def test_an_answer_in_one_piece(url: str, path: str) -> None:
    body = post(url, path, messages=USER).json
    assert body["object"] == "chat.completion"
    assert body["model"] == KEY
    assert body["id"].startswith("chatcmpl-")
    message = {"role": "assistant", "content": "Hello there"}
    assert body["choices"] == [{"index": 0, "logprobs": None, "finish_reason": "stop", "message": message}]
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert body["stats"].keys() == {"tokens_per_second", "time_to_first_token", "generation_time", "stop_reason"}
    assert body["stats"]["stop_reason"] == "eosFound"
    assert body["model_info"] == {"arch": "bird", "quant": "Q8_0", "format": "gguf", "context_length": 2048}
    assert body["runtime"] == {"name": "parrot", "version": "1.0", "supported_formats": ["gguf"]}


def test_a_streamed_answer_has_lm_studios_chunks(url: str) -> None:
    answer = chat(url, stream=True)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert {chunk["object"] for chunk in answer.chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in answer.chunks}) == 1
    assert [chunk["choices"] for chunk in answer.chunks] == [
        *(
            [{"index": 0, "delta": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": None}]
            for text in ("Hel", "lo", " there")
        ),
        [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}],
    ]


def test_the_usage_chunk_comes_last_and_only_if_asked_for(url: str) -> None:
    last = chat(url, stream=True, stream_options={"include_usage": True}).chunks[-1]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert all("usage" not in chunk for chunk in chat(url, stream=True).chunks)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("eosFound", "stop"),
        ("stopStringFound", "stop"),
        ("maxPredictedTokensReached", "length"),
        ("contextLengthReached", "length"),
    ],
)
def test_finish_reasons(url: str, parrot: Parrot, stop_reason: str, finish_reason: str) -> None:
    parrot.end = Finished(stop_reason=stop_reason, prompt_tokens=1, completion_tokens=1)  # type: ignore[arg-type]
    assert chat(url).json["choices"][0]["finish_reason"] == finish_reason
    assert chat(url, stream=True).chunks[-1]["choices"][0]["finish_reason"] == finish_reason


def test_a_completion_in_one_piece_and_streamed(url: str, parrot: Parrot) -> None:
    whole = post(url, "/v1/completions", prompt="Say").json
    assert whole["object"] == "text_completion"
    assert whole["choices"] == [{"index": 0, "text": "Hello there", "logprobs": None, "finish_reason": "stop"}]
    assert whole["usage"]["total_tokens"] == 8
    chunks = post(url, "/api/v0/completions", prompt="Say", stream=True, stream_options={"include_usage": True}).chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "Hello there"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 8
    assert [job.prompt for job in parrot.jobs] == ["Say", "Say"]


# --- tool calls ---


def test_a_tool_call_in_one_piece(url: str, parrot: Parrot) -> None:
    parrot.pieces = [CALL]
    choice = chat(url, tools=[WEATHER]).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert "content" not in choice["message"]
    (call,) = choice["message"]["tool_calls"]
    assert len(call.pop("id")) == 9
    assert call == {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


def test_a_streamed_tool_call_opens_with_its_name_and_goes_on_with_fragments(url: str, parrot: Parrot) -> None:
    parrot.pieces = list(CALL)
    answer = chat(url, tools=[WEATHER], stream=True)
    first, *others, last = answer.deltas
    (opening,) = first["tool_calls"]
    assert first["role"] == "assistant"
    assert opening.pop("id")
    assert opening == {"index": 0, "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    fragments = [delta["tool_calls"][0] for delta in others]
    assert len(fragments) > 3
    assert all(part.keys() == {"index", "type", "function"} and part["function"]["name"] == "" for part in fragments)
    assert "".join(part["function"]["arguments"] for part in fragments) == '{"city": "Paris"}'
    assert last == {}
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_two_calls_and_text_before_them(url: str, parrot: Parrot) -> None:
    parrot.pieces = ["Let me see. ", CALL, "\n", CALL, "\n"]
    message = chat(url, tools=[WEATHER]).json["choices"][0]["message"]
    assert message["content"] == "Let me see. "
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    indices = [
        call["index"] for d in chat(url, tools=[WEATHER], stream=True).deltas for call in d.get("tool_calls", [])
    ]
    assert sorted(set(indices)) == [0, 1]
    assert indices == sorted(indices)


def test_a_malformed_call_stays_text(url: str, parrot: Parrot) -> None:
    parrot.pieces = ["[TOOL_REQUEST]{name: get_weather}[END_TOOL_REQUEST]"]
    choice = chat(url, tools=[WEATHER]).json["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": parrot.pieces[0]}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("fields", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
def test_without_tools_nothing_is_taken_for_a_call(url: str, parrot: Parrot, fields: dict[str, object]) -> None:
    parrot.pieces = [CALL]
    assert chat(url, **fields).json["choices"][0]["message"]["content"] == CALL
    assert "AVAILABLE TOOLS" not in str(parrot.jobs[0].prompt)


def test_a_required_call_is_made_under_a_grammar(url: str, parrot: Parrot) -> None:
    parrot.pieces = list(CALL)
    message = chat(url, tools=[WEATHER], tool_choice="required").json["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'
    constraint = parrot.jobs[0].constraint
    assert constraint is not None
    assert constraint.kind == "lark"


def test_a_schema_reaches_the_model(url: str, parrot: Parrot) -> None:
    chat(url, response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string"}}})
    constraint = parrot.jobs[0].constraint
    assert constraint is not None
    assert json.loads(constraint.grammar)["type"] == "string"


# --- what is refused ---

STRUCTURE = "Invalid 'messages' in payload. Please check the structure of your 'messages' and try again"
CONTENT = "Invalid 'content': 'content' field must be a string or an array of objects."
PARAMETERS = [0, "function", "parameters"]
CHOICES = "Supported string values: none, auto, required"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": None}, STRUCTURE),
        ({"messages": []}, STRUCTURE),
        ({"messages": ["x"]}, STRUCTURE),
        ({"messages": [{"content": "x"}]}, STRUCTURE),
        ({"messages": [{"role": "user", "content": None}]}, CONTENT),
        ({"messages": [{"role": "user", "content": ["x"]}]}, CONTENT),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]}, CONTENT),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "", "function": {"name": "f", "arguments": ""}}]}]},
         STRUCTURE),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]}]},
         STRUCTURE),
        ({"messages": [{"role": "assistant", "tool_calls": ["x"]}]}, STRUCTURE),
        ({"messages": [{"role": "tool", "content": "x"}]}, STRUCTURE),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
         "'url' field must be a base64 encoded image."),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]},
         "Model does not support images. Please use a model that does."),
        ({"tool_choice": {"type": "function"}}, f"Invalid tool_choice type: 'object'. {CHOICES}"),
        ({"tool_choice": "get_weather"}, f"Invalid tool_choice value: 'get_weather'. {CHOICES}"),
        ({"response_format": {"type": "json_object"}}, "'response_format.type' must be 'json_schema' or 'text'"),
        ({"response_format": {"type": "json_schema"}}, "'response_format.json_schema.schema' must be an object"),
        ({"temperature": "hot"}, "'temperature' field must be a number"),
        ({"temperature": -1}, "'temperature' field must be between 0 and 100"),
        ({"max_tokens": 1.5}, "'max_tokens' field must be an integer"),
        ({"max_tokens": True}, "'max_tokens' field must be an integer"),
        ({"seed": 2**63}, "'seed' field must be an integer"),
        ({"stop": 5}, "'stop' field must be a string or an array of strings"),
        ({"stop": ["x"] * 65}, "'stop' field must hold at most 64 strings"),
        ({"stream": "yes"}, "'stream' field must be a boolean"),
        ({"stream_options": []}, "'stream_options' field must be an object"),
        ({"logit_bias": {"hello": 1}}, "'logit_bias' field must be an object of token ids and numbers"),
        ({"model": 5}, "'model' field must be a string"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_rule_is_answered_in_lm_studios_words(
    url: str, fields: dict[str, object], error: str, stream: bool
) -> None:
    answer = chat(url, **{"stream": stream, **fields})
    assert answer.status == 400
    assert answer.json == {"error": error}


@pytest.mark.parametrize(
    ("tool", "path", "code"),
    [
        ({"function": {"name": "f"}}, [*PARAMETERS, "type"], "invalid_union_discriminator"),
        ({"function": {"name": "f", "parameters": {"type": "string"}}}, [*PARAMETERS, "type"], "invalid_union_discriminator"),
        ({"function": {"name": "f", "parameters": {"type": "object"}}}, [*PARAMETERS, "properties"], "invalid_type"),
        ({"function": {"parameters": {"type": "object", "properties": {}}}}, [0, "function", "name"], "invalid_type"),
        ({"type": "function"}, [0, "function"], "invalid_type"),
    ],
)  # fmt: skip
def test_a_bad_tool_is_answered_with_a_list_of_issues_in_a_string(
    url: str, tool: dict[str, object], path: list[object], code: str
) -> None:
    answer = chat(url, tools=[tool, WEATHER])
    assert answer.status == 400
    (issue,) = json.loads(answer.json["error"])
    assert (issue["path"], issue["code"]) == (path, code)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_json_object(url: str, body: bytes) -> None:
    answer = ask(url, "POST", "/v1/chat/completions", body)
    assert (answer.status, answer.json) == (400, {"error": "Invalid JSON in request body"})


def test_a_body_has_a_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_BODY_BYTES", 1000)
    assert chat(url, messages=[{"role": "user", "content": "x" * 2000}]).status == 413
    assert chat(url).status == 200
    monkeypatch.setattr(disconnect, "BODY_SECONDS", 0.1)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=PATIENCE) as late:
        late.sendall(head + b"Content-Length: 900\r\n\r\n")
        assert late.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_a_model_that_is_not_there(url: str) -> None:
    answer = chat(url, model="gpt-4")
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"


def test_a_refusal_of_the_back_end_has_its_status_streamed_or_not(url: str, parrot: Parrot) -> None:
    parrot.refusal = BackendError("Too much.", status=503)
    for stream in (False, True):
        answer = chat(url, stream=stream)
        assert (answer.status, answer.json) == (503, {"error": "Too much."})


# --- failures on the way ---


def test_a_failure_before_an_answer_in_one_piece_has_a_status(url: str, parrot: Parrot) -> None:
    parrot.pieces = ["Hel", BackendError("The model fell over.", status=500)]
    answer = chat(url)
    assert (answer.status, answer.json) == (500, {"error": "The model fell over."})


def test_a_failure_in_a_stream_is_an_error_event_and_no_done(url: str, parrot: Parrot) -> None:
    parrot.pieces = ["Hel", BackendError("The model fell over.")]
    answer = chat(url, stream=True)
    assert answer.status == 200
    event, data = answer.frames[-1].split(b"\n")
    assert event == b"event: error"
    message = "The model fell over."
    assert json.loads(data.removeprefix(b"data: ")) == {"error": {"message": message}, "message": message}
    assert b"[DONE]" not in answer.body


# --- clients that leave, servers that end ---


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_generation(url: str, parrot: Parrot, stream: bool) -> None:
    parrot.pause = threading.Event()
    with asking(url, stream=stream):
        eventually(lambda: parrot.jobs)
        assert not parrot.closed.is_set()
    eventually(parrot.closed.is_set)
    assert parrot.said == []


def test_ending_the_server_ends_answers_in_progress_at_once() -> None:
    parrot = Parrot()
    parrot.pause = threading.Event()
    closed = threading.Event()
    server = BackgroundServer(create_app(DefaultToolUse(parrot)), listen(), closed.set)
    with asking(server.base_url, stream=True) as connection:
        eventually(lambda: parrot.jobs)
        server.close()
        assert parrot.closed.is_set()
        assert closed.is_set()
        received = b""
        while part := connection.recv(65536):
            received += part
        assert b"[DONE]" not in received
    server.close()


def test_a_port_in_use_is_reported_by_its_number(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"port {port}"):
        listen(port=port)


def test_an_unexpected_failure_is_json_without_details(
    url: str, parrot: Parrot, caplog: pytest.LogCaptureFixture
) -> None:
    parrot.pieces = [RuntimeError("secret")]
    answer = chat(url)
    assert answer.status == 500
    assert answer.json == {"error": "The server failed while answering (RuntimeError). See its log for the details."}
    streamed = chat_cut(url)
    assert b"event: error" in streamed
    assert b"secret" not in answer.body + streamed
    assert "secret" in caplog.text
    assert ask(url, "GET", "/v1/models").status == 200


def chat_cut(url: str) -> bytes:
    """Read a stream whose connection the server closes before the end of the body."""
    received = b""
    with asking(url, stream=True) as connection:
        while part := connection.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("path", ["/llm", "/system"])
def test_a_websocket_of_lm_studio_s_sdks_is_told_what_works(url: str, path: str) -> None:
    """The answer has an error status and a sentence."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    connection.request("GET", path, headers=upgrade)
    answer = connection.getresponse()
    said = json.loads(answer.read())["error"]
    connection.close()
    assert answer.status == 426
    assert "WebSocket" in said
