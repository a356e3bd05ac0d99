"""LM Studio's other endpoints: what is sent, and what their answers become, in both clients, over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from asking import alm, lm
from lmdeck import (
    APIError,
    Chunk,
    ConfigurationError,
    DownloadJob,
    EmptyReplyError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    ModelLoadProgress,
    ModelNotFoundError,
    Reply,
    ServerError,
    ServerEvent,
)
from lmdeck.native_events import MessageDelta, ModelLoadProgressEvent, NativeEvent, ToolCallSuccess
from lmdeck.testing import FakeLMStudio, RawAnswer, SentRequest
from loopback import PATIENCE

LIST = "/api/v1/models"
LOAD, UNLOAD, DOWNLOAD = f"{LIST}/load", f"{LIST}/unload", f"{LIST}/download"
STATS = {"input_tokens": 3, "total_output_tokens": 4, "tokens_per_second": 9.5, "model_load_time_seconds": 2.5}
OUTPUT = [
    {"type": "reasoning", "content": "Look it up."},
    {"type": "tool_call", "tool": "find", "arguments": {"q": 1}, "output": "1", "provider_info": {"type": "plugin"}},
    {"type": "invalid_tool_call", "reason": "no such tool", "metadata": {"type": "invalid_name", "tool_name": "x"}},
    {"type": "message", "content": "It is one."},
]
NATIVE = {"model_instance_id": "m", "output": OUTPUT, "stats": STATS, "response_id": "resp_1"}
NATIVE_EVENTS: list[dict[str, Any]] = [
    {"type": "chat.start", "model_instance_id": "m"},
    {"type": "model_load.start", "model_instance_id": "m"},
    {"type": "model_load.progress", "model_instance_id": "m", "progress": 0.5},
    {"type": "model_load.end", "model_instance_id": "m", "load_time_seconds": 2.5},
    {"type": "prompt_processing.start"},
    {"type": "prompt_processing.progress", "progress": 0.5},
    {"type": "prompt_processing.end"},
    {"type": "reasoning.start"},
    {"type": "reasoning.delta", "content": "Look it up."},
    {"type": "reasoning.end"},
    {"type": "tool_call.start", "tool": "find", "provider_info": {"type": "plugin"}},
    {"type": "tool_call.arguments", "tool": "find", "arguments": {"q": 1}, "provider_info": {"type": "plugin"}},
    {"type": "tool_call.success", **{k: v for k, v in OUTPUT[1].items() if k != "type"}},
    {"type": "tool_call.failure", **{k: v for k, v in OUTPUT[2].items() if k != "type"}},
    {"type": "message.start"},
    {"type": "message.delta", "content": "It is"},
    {"type": "message.delta", "content": " one."},
    {"type": "message.end"},
    {"type": "chat.end", "result": NATIVE},
]
RESPONSE = {
    "id": "resp_2",
    "model": "m",
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Look it up."}]},
        {"type": "function_call", "call_id": "call_1", "name": "find", "arguments": '{"q": 1}'},
        {"type": "message", "content": [{"type": "output_text", "text": "It is one.", "logprobs": []}]},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
}
RESPONSE_EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": {"id": "resp_2", "model": "m", "status": "in_progress"}},
    {"type": "response.reasoning_text.done", "output_index": 0, "text": "Look it up."},
    {"type": "response.output_item.added", "output_index": 1, "item": {**RESPONSE["output"][1], "arguments": ""}},  # type: ignore[index]
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"q"'},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": ": 1}"},
    {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": '{"q": 1}'},
    {"type": "response.output_item.done", "output_index": 1, "item": RESPONSE["output"][1]},  # type: ignore[index]
    {"type": "response.output_text.delta", "output_index": 2, "delta": "It is"},
    {"type": "response.output_text.delta", "output_index": 2, "delta": " one."},
    {"type": "response.output_text.done", "output_index": 2, "text": "It is one."},
    {"type": "response.completed", "response": RESPONSE},
]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "m",
    "stop_reason": "tool_use",
    "content": [
        {"type": "thinking", "thinking": "Look it up."},
        {"type": "text", "text": "It is one."},
        {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"q": 1}},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4},
}
MESSAGE_EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Look it up."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "It is"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " one."}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "find"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q"'}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
    {"type": "content_block_stop", "index": 2},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {"q": {}}}}}
CASES: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "conversation": ("/api/v1/chat", NATIVE, NATIVE_EVENTS),
    "responses": ("/v1/responses", RESPONSE, RESPONSE_EVENTS),
    "messages": ("/v1/messages", MESSAGE, MESSAGE_EVENTS),
}


def begun(client: Any, name: str, *, stream: bool) -> Any:
    """Ask one of the endpoints."""
    if name == "conversation":
        conversation = client.conversation("m")
        return conversation.stream("Find") if stream else conversation.send("Find")
    given = {"input": "Find"} if name == "responses" else {"messages": [{"role": "user", "content": "Find"}]}
    endpoint = getattr(client, name)
    return (endpoint.stream if stream else endpoint.create)(model="m", tools=[TOOL], **given)


def ask(url: str, name: str, *, is_async: bool, stream: bool) -> tuple[Reply, list[Chunk]]:
    """Ask with a new client; give the reply and the chunks."""

    async def ask_async() -> tuple[Reply, list[Chunk]]:
        async with alm(url) as client:
            if not stream:
                return await begun(client, name, stream=False), []
            async with begun(client, name, stream=True) as opened:
                chunks = [chunk async for chunk in opened]
                return opened.reply, chunks

    if is_async:
        return asyncio.run(ask_async())
    with lm(url) as client:
        if not stream:
            return begun(client, name, stream=False), []
        with begun(client, name, stream=True) as opened:
            chunks = list(opened)
            return opened.reply, chunks


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_the_same_reply_whatever_the_endpoint(
    fake: FakeLMStudio, name: str, is_async: bool, stream: bool
) -> None:
    """Content, reasoning, calls, tokens and names; streamed or not, sync or async."""
    path, body, events = CASES[name]
    _ = fake.frames(*events) if stream else fake.body(body)
    reply, chunks = ask(fake.base_url, name, is_async=is_async, stream=stream)
    request = fake.requests[0]
    assert (request.path, request.body["model"], request.body["stream"]) == (path, "m", stream)
    assert (reply.content, reply.reasoning, reply.model) == ("It is one.", "Look it up.", "m")
    assert reply.id == body.get("id", body.get("response_id"))
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 4, 7)
    if name == "conversation":
        assert [(call.name, call.output, call.error) for call in reply.server_calls] == [
            ("find", "1", None),
            ("x", "", "no such tool"),
        ]
        assert (reply.finish_reason, reply.tool_calls) == ("stop", [])
        assert (reply.stats.tokens_per_second, reply.stats.model_load_time) == (9.5, 2.5)
    else:
        assert [(call.name, call.arguments) for call in reply.tool_calls] == [("find", {"q": 1})]
        assert reply.finish_reason == "tool_calls"
    if stream:
        assert "".join(chunk.content for chunk in chunks) == reply.content
        assert sum(chunk.event is not None for chunk in chunks) == len(events)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_arguments_of_a_message_s_call_may_be_json_in_a_string(fake: FakeLMStudio, stream: bool) -> None:
    """Some servers write them so."""
    block = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": '{"q": 1}'}
    frames = [
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
    ]
    _ = fake.frames(*frames, *MESSAGE_EVENTS[-2:]) if stream else fake.body({**MESSAGE, "content": [block]})
    reply, _chunks = ask(fake.base_url, "messages", is_async=False, stream=stream)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("find", {"q": 1})]


def test_the_native_events_are_typed_and_unknown_ones_are_passed_through(fake: FakeLMStudio) -> None:
    """All nineteen but `error`, which is raised; a new one of the server's is no fault."""
    fake.frames(*NATIVE_EVENTS[:-1], {"type": "tool_call.name", "tool": "find"}, NATIVE_EVENTS[-1])
    _, chunks = ask(fake.base_url, "conversation", is_async=False, stream=True)
    events = [chunk.event for chunk in chunks if chunk.event is not None]
    assert len({type(each) for each in events if isinstance(each, NativeEvent)}) == 18
    assert ServerEvent("tool_call.name", {"type": "tool_call.name", "tool": "find"}) in events
    assert ModelLoadProgressEvent(0.5, "m") in events
    assert MessageDelta("It is") in events
    assert any(isinstance(each, ToolCallSuccess) and each.output == "1" for each in events)


@pytest.mark.parametrize("name", CASES)
def test_a_cut_stream_is_an_error_with_what_had_come(fake: FakeLMStudio, name: str) -> None:
    """No end mark, no whole answer."""
    events = CASES[name][2]
    stop = next(i for i, each in enumerate(events) if "is one." in json.dumps(each).replace('It is"', "is one.")) + 1
    fake.frames(*events[:stop])
    with pytest.raises(IncompleteStreamError) as caught:
        ask(fake.base_url, name, is_async=False, stream=True)
    assert caught.value.partial is not None
    assert caught.value.partial.reasoning == "Look it up."


@pytest.mark.parametrize("name", CASES)
def test_a_failure_inside_a_stream_is_raised(fake: FakeLMStudio, name: str) -> None:
    """The error's class is what the failure means, and it has a hint."""
    failure = {"type": "error", "error": {"type": "invalid_request_error", "message": "bad field", "param": "model"}}
    if name == "responses":
        failure = {
            "type": "response.failed",
            "response": {"error": {"message": "bad field", "type": "invalid_request_error"}},
        }
    fake.frames(*CASES[name][2][:1], failure)
    with pytest.raises(InvalidRequestError) as caught:
        ask(fake.base_url, name, is_async=False, stream=True)
    assert "bad field" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("name", CASES)
def test_a_body_of_another_endpoint_is_malformed(fake: FakeLMStudio, name: str) -> None:
    """A proxy that leads elsewhere is told from an answer."""
    fake.body({"hello": 1})
    with pytest.raises(MalformedStreamError):
        ask(fake.base_url, name, is_async=False, stream=False)


def test_tools_are_sent_in_each_endpoint_s_form(fake: FakeLMStudio) -> None:
    """One form in, two out; and empty parts that LM Studio refuses go, which is reported."""
    fake.body(RESPONSE).body(MESSAGE)
    with lm(fake.base_url) as client:
        reply = client.responses.create(model="m", input="x", tools=[{"type": "function", "name": "f"}, TOOL], text={})
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]
        client.messages.create(model="m", messages=messages, tools=[TOOL], tool_choice="required")
        first, second = (request.body for request in fake.requests)
    assert first["tools"][0]["parameters"] == {"type": "object", "properties": {}}
    assert first["tools"][1]["name"] == "find"
    assert "text" not in first
    assert [problem.code for problem in reply.problems] == ["adjusted", "adjusted"]
    assert second["tools"][0]["input_schema"]["properties"] == {"q": {}}
    assert (second["system"], second["tool_choice"]) == ("Be brief.", {"type": "any"})
    assert [message["role"] for message in second["messages"]] == ["user"]


# --- conversations --------------------------------------------------------------------------------------------------------


def native(number: int, text: str = "Yes.") -> dict[str, Any]:
    return {"model_instance_id": "m", "output": [{"type": "message", "content": text}], "response_id": f"resp_{number}"}


def test_a_conversation_goes_on_from_its_last_response_and_branches(fake: FakeLMStudio) -> None:
    """The system prompt is sent once, integrations each time; a branch leaves the trunk as it is."""
    fake.body(native(1)).body(native(2)).body(native(3))
    with lm(fake.base_url) as client:
        trunk = client.conversation("m", system_prompt="Be brief.", integrations=["mcp/x"], reasoning="low")
        trunk.send("One")
        branch = trunk.branch()
        branch.send("Two")
        with trunk.stream("Three") as stream:
            stream.until_done()
        sent = [request.body for request in fake.requests if request.body]
    assert [body.get("previous_response_id") for body in sent] == [None, "resp_1", "resp_1"]
    assert [body.get("system_prompt") for body in sent] == ["Be brief.", None, None]
    assert all(body["integrations"] == ["mcp/x"] and body["reasoning"] == "low" for body in sent)
    assert (branch.response_id, trunk.response_id) == ("resp_2", "resp_3")
    assert [message.content for message in trunk.history] == ["One", "Yes.", "Three", "Yes."]


@pytest.mark.parametrize("recover", [True, False])
def test_a_forgotten_conversation_is_replayed_on_request(fake: FakeLMStudio, recover: bool) -> None:
    """The reply reports it; without `recover` the server's refusal is raised."""
    error = {"type": "invalid_request", "message": "Response not found", "param": "previous_response_id"}
    fake.body(native(1, "Blue.")).body({"error": error}, status=400).body(native(2))
    with lm(fake.base_url) as client:
        conversation = client.conversation("m", recover=recover)
        conversation.send("Which colour?")
        if not recover:
            with pytest.raises(InvalidRequestError):
                conversation.send("Again?")
            return
        reply = conversation.send("Again?")
        last = fake.requests[-1].body
    assert "previous_response_id" not in last
    assert "Blue." in last["input"][0]["content"]
    assert last["input"][1] == {"type": "message", "content": "Again?"}
    assert [problem.code for problem in reply.problems] == ["history_replayed"]
    assert conversation.response_id == "resp_2"


@pytest.mark.parametrize("store", [True, False])
def test_a_conversation_that_is_not_stored_is_sent_in_full(fake: FakeLMStudio, store: bool) -> None:
    """Without the id of the last response the server cannot know it, even if earlier responses have ids."""
    fake.body(native(1, "Blue.")).body({**native(2), "response_id": None}).body(native(3)).body(native(4))
    with lm(fake.base_url) as client:
        conversation = client.conversation("m", system_prompt="Be brief.", store=store)
        told = [
            [problem.code for problem in conversation.send(text).problems] for text in ("One", "Two", "Three", "Four")
        ]
        sent = [request.body for request in fake.requests]
    assert [body.get("previous_response_id") for body in sent] == [None, "resp_1", None, "resp_3"]
    assert [body.get("system_prompt") for body in sent] == ["Be brief.", None, "Be brief.", None]
    assert all(text in sent[2]["input"][0]["content"] for text in ("One", "Blue.", "Two"))
    assert told == [[], [], ["history_replayed"], []]


# --- models ---------------------------------------------------------------------------------------------------------------


def listed(*instances: tuple[str, int]) -> dict[str, Any]:
    loaded = [{"id": name, "config": {"context_length": length, "parallel": 2}} for name, length in instances]
    return {"models": [{"type": "llm", "key": "m", "loaded_instances": loaded}]}


LOADED = {"type": "llm", "instance_id": "m:2", "load_time_seconds": 1.5, "load_config": {"context_length": 8}}


def test_a_model_that_is_loaded_as_asked_is_not_loaded_twice(fake: FakeLMStudio) -> None:
    """A longer context fits, a shorter one does not, and `force` loads another."""
    fake.at(LIST).body(listed(("m", 4096)))
    fake.at(LOAD).body(LOADED)
    with lm(fake.base_url) as client:
        assert client.models.load("m", context_length=2048).already_loaded
        assert client.models.load("m").instance_id == "m"
        longer = client.models.load("m", context_length=8192)
        forced = client.models.load("m", force=True)
        bodies = [request.body for request in fake.requests if request.path == LOAD]
    assert (longer.instance_id, longer.load_time, longer.config) == ("m:2", 1.5, {"context_length": 8})
    assert not forced.already_loaded
    assert [body.get("context_length") for body in bodies] == [8192, None]


def test_ensure_loaded_reports_the_load_and_unload_ends_it(fake: FakeLMStudio) -> None:
    """Progress ends with 1, also where there was nothing to do."""
    seen: list[ModelLoadProgress] = []
    fake.at(LIST).body(listed())
    fake.at(LOAD).body(LOADED)
    fake.at(UNLOAD).body({"instance_id": "m:2"})
    with lm(fake.base_url) as client:
        assert client.models.ensure_loaded("m", on_progress=seen.append).instance_id == "m:2"
        assert client.models.unload("m:2") == "m:2"
    assert [each.progress for each in seen] == [0.0, 1.0]


@pytest.mark.parametrize(("key", "hint"), [("m@q4_k_m", "models.load('m')"), ("other@q4", "lmdeck models")])
def test_a_key_that_cannot_be_loaded_is_reported_with_those_that_can(fake: FakeLMStudio, key: str, hint: str) -> None:
    """LM Studio lists variants, but loads only the selected one, by the model's key (bug tracker #1462)."""
    fake.at(LIST).body(listed())
    fake.at(LOAD).body({"error": {"type": "model_not_found", "message": f"Model {key} not found"}}, status=404)
    with lm(fake.base_url) as client, pytest.raises(ModelNotFoundError) as caught:
        client.models.load(key)
    assert caught.value.available == ["m"]
    assert hint in caught.value.hint


def test_a_bad_load_option_is_refused_before_anything_is_sent(fake: FakeLMStudio) -> None:
    """It names the option."""
    with lm(fake.base_url) as client, pytest.raises(ConfigurationError, match="context_length"):
        client.models.load("m", context_length=-1)
    assert not fake.requests


def job(status: str, done: int | None = None) -> dict[str, Any]:
    return {"job_id": "job_1", "status": status, "total_size_bytes": 10, "downloaded_bytes": done}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_download_is_waited_for_through_a_pause(fake: FakeLMStudio, is_async: bool) -> None:
    """Every status is told, also to an async callback."""
    seen: list[DownloadJob] = []

    async def see(told: DownloadJob) -> None:
        seen.append(told)

    async def download(url: str) -> DownloadJob:
        async with alm(url) as client:
            return await client.models.download("m", on_progress=see)

    fake.at(DOWNLOAD).body(job("downloading"))
    fake.at(f"{DOWNLOAD}/status/job_1").body(job("paused", 5)).body(job("completed", 10))
    if is_async:
        asyncio.run(download(fake.base_url))
    else:
        with lm(fake.base_url) as client:
            client.models.download("m", on_progress=seen.append)
    assert fake.requests[-1].path == f"{DOWNLOAD}/status/job_1"
    assert [each.status for each in seen] == ["downloading", "paused", "completed"]
    assert [each.progress for each in seen] == [None, 0.5, 1.0]


def test_a_failed_download_is_an_error_and_a_strange_job_is_not_asked_for(fake: FakeLMStudio) -> None:
    """A failed job raises, and a job with an unusable id is never requested."""
    fake.at(f"{DOWNLOAD}/status/job_1").body(job("failed"))
    with lm(fake.base_url) as client:
        with pytest.raises(APIError, match="failed"):
            client.models.wait_for_download("job_1")
        with pytest.raises(InvalidRequestError):
            client.models.download_status("../../secrets")
        assert len(fake.requests) == 1


# --- embeddings and completions -------------------------------------------------------------------------------------------


def test_embeddings_keep_the_order_of_the_texts_over_batches(fake: FakeLMStudio) -> None:
    """The order is kept, whatever order and encoding the server answers in."""

    def answer(request: SentRequest) -> RawAnswer:
        texts = request.body["input"]
        entries = [{"index": place, "embedding": [float(text)]} for place, text in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return RawAnswer.json({"data": entries[::-1], "model": "e", "usage": usage})

    fake.add_model("e", type="embeddings")
    fake.at("/v1/embeddings").respond(answer)
    with lm(fake.base_url) as client:
        embeddings = client.embed([str(number) for number in range(5)], model="e", batch_size=2)
    assert embeddings.vectors == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert [len(request.body["input"]) for request in fake.requests] == [2, 2, 1]
    assert embeddings.usage is not None
    assert embeddings.usage.total_tokens == 5
    assert embeddings.arrays()[4][0] == 4.0


@pytest.mark.parametrize("data", [[], [{"embedding": "%%"}], [{"embedding": []}], [{"embedding": ["x"]}]])
def test_embeddings_that_cannot_be_read_are_an_error(fake: FakeLMStudio, data: list[Any]) -> None:
    """Too few vectors, invalid base64, empty vectors and other values than numbers raise an error."""
    fake.body({"data": data})
    with lm(fake.base_url) as client, pytest.raises(MalformedStreamError):
        client.embed("x", model="e")
    fake.body({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]})
    with lm(fake.base_url) as client, pytest.raises(MalformedStreamError, match="1 and 2 numbers"):
        client.embed(["x", "y"], model="e")


def test_dimensions_that_the_server_ignores_are_an_error(fake: FakeLMStudio) -> None:
    """Another length than requested would be noticed only later, or never (goruck/home-generative-agent#375)."""
    fake.at("/v1/embeddings").body({"data": [{"embedding": [1.0, 2.0, 3.0]}]})
    with lm(fake.base_url) as client:
        assert client.embed("x", model="e", dimensions=3).vectors == [[1.0, 2.0, 3.0]]
        with pytest.raises(MalformedStreamError, match="have 3 numbers, although 2") as failure:
            client.embed("x", model="e", dimensions=2)
    assert "`dimensions`" in failure.value.hint


def test_token_ids_are_refused_and_an_embedding_model_is_chosen(fake: FakeLMStudio) -> None:
    """LM Studio takes texts only; without a name, an embedding model answers and never a chat model."""
    fake.at(LIST).body({"models": [{"type": "llm", "key": "m"}, {"type": "embedding", "key": "e"}]})
    fake.body({"data": [{"embedding": [1.0]}]})
    with lm(fake.base_url, model=None) as client:
        with pytest.raises(ConfigurationError, match="token ids"):
            client.embed([[1, 2]], model="e")  # type: ignore[list-item]
        assert client.embed("x").model == "e"
        assert fake.requests[-1].body == {"model": "e", "input": "x"}


def test_a_completion_keeps_its_white_space_and_an_empty_one_is_an_error(fake: FakeLMStudio) -> None:
    """The text stays as the model wrote it."""
    whole = {
        "id": "c",
        "model": "m",
        "choices": [{"text": " went on", "finish_reason": "length", "logprobs": None}],
    }
    fake.body(whole).body({"choices": [{"text": ""}]}).body({"choices": [{"text": "", "finish_reason": "length"}]})
    with lm(fake.base_url) as client:
        done = client.complete("It", model="m", max_tokens=2, temperature=None)
        assert (done.text, done.finish_reason, done.logprobs) == (" went on", "length", [])
        assert fake.requests[0].body == {"model": "m", "prompt": "It", "max_tokens": 2, "stream": False}
        with pytest.raises(EmptyReplyError, match="shorten it or ask again"):
            client.complete("It", model="m")
        with pytest.raises(EmptyReplyError, match="raise `max_tokens`"):
            client.complete("It", model="m")


# --- concurrency ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_no_more_than_the_limit_are_asked_at_once_and_the_wait_is_a_stat(fake: FakeLMStudio, is_async: bool) -> None:
    """The rest wait here, in order, and nobody waits for ever."""

    async def ask_all(url: str) -> list[Reply]:
        async with alm(url, max_concurrency=2) as client:
            return list(await asyncio.gather(*(client.chat("m").user("x").send() for _ in range(6))))

    fake.when(lambda _: True).reply("Hi.", time_to_first_token=0.2)
    if is_async:
        replies = asyncio.run(ask_all(fake.base_url))
    else:
        replies = []
        with lm(fake.base_url, max_concurrency=2) as client:
            threads = [
                threading.Thread(target=lambda: replies.append(client.chat("m").user("x").send())) for _ in range(6)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
    assert len(replies) == 6
    assert fake.most_at_once == 2
    waits = sorted(reply.stats.queue_time for reply in replies)
    assert waits[0] < waits[-1]
    assert waits[-1] > 0.05


def test_a_turn_is_given_on_after_errors_and_streams_that_are_left(fake: FakeLMStudio) -> None:
    """Every further request under a limit of one shows that the one before released its slot."""
    fake.frames(*NATIVE_EVENTS).body({"error": "no"}, status=400).body(native(1))
    with lm(fake.base_url, max_concurrency=1) as client:
        with client.conversation("m").stream("x") as stream:
            next(stream)
        with pytest.raises(LMStudioError):
            client.conversation("m").send("x")
        assert client.conversation("m").send("x").content == "Yes."


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "word"), [("mcp_connection_error", "MCP server"), ("plugin_connection_error", "plugin")]
)
def test_a_tool_server_that_cannot_be_reached_is_reported(
    fake: FakeLMStudio, kind: str, word: str, is_async: bool, is_streamed: bool
) -> None:
    """LM Studio's type decides, whatever words it quotes, in the middle of a stream as well."""
    error = {"type": kind, "message": "Cannot connect: 404, no such model of a page, jinja"}
    before = [{"type": "chat.start", "model_instance_id": "m"}, {"type": "message.delta", "content": "Let me see."}]
    if is_streamed:
        fake.frames(*before, {"type": "error", "error": error})
    else:
        fake.body({"error": error}, status=500)

    async def ask(url: str) -> None:
        async with alm(url) as client:
            conversation = client.conversation("m", integrations=["mcp/files"])
            await (conversation.stream("x").until_done() if is_streamed else conversation.send("x"))

    def ask_sync(url: str) -> None:
        with lm(url) as client:
            conversation = client.conversation("m", integrations=["mcp/files"])
            _ = conversation.stream("x").until_done() if is_streamed else conversation.send("x")

    with pytest.raises(ServerError) as caught:
        _ = asyncio.run(ask(fake.base_url)) if is_async else ask_sync(fake.base_url)
    assert caught.value.type == kind
    assert word in caught.value.hint
    assert (caught.value.partial.content if caught.value.partial else "") == ("Let me see." if is_streamed else "")
