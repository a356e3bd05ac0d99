"""Hints that fit: the refusal's words, the page of a proxy, the product that answers; and nothing in a message that harms."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from asking import WAYS, Way, alm, lm
from lmdeck import (
    AuthenticationError,
    ConfigurationError,
    EndpointNotFoundError,
    InvalidRequestError,
    LMStudioError,
    ModelNotFoundError,
    NoModelLoadedError,
    RequestTimeoutError,
    ServerError,
    TemplateError,
)
from lmdeck.cli import run as lmdeck
from loopback import CLOSE, HANG, PATIENCE, RESET, Loopback, head, hello, json_answer, text_answer
from wire_formats import FORMATS, STREAMED, run, stream_of

IS_ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])

WORDS: dict[str, tuple[int, object, type[LMStudioError], str]] = {
    "vision": (
        400,
        "Model does not support images. Please use a model that does.",
        InvalidRequestError,
        "accepts images",
    ),
    "vision, vLLM": (400, "At most 0 image(s) may be provided in one prompt.", InvalidRequestError, "accepts images"),
    "draft": (400, "Draft model is not compatible with the main model", InvalidRequestError, "draft_model"),
    "local MCP": (
        403,
        "Permission denied to use local MCP server 'x'. Ensure that the server configuration allows local integrations.",
        AuthenticationError,
        "permission",
    ),
    "local MCP, 400": (400, "Permission denied to use local MCP server 'x'.", AuthenticationError, "permission"),
    "server_url": (400, {"message": "Required", "param": "tools.0.server_url"}, InvalidRequestError, "integrations"),
    "tool type": (400, {"message": "Invalid", "param": "tools.8.type"}, InvalidRequestError, "function and mcp"),
    "roles": (
        400,
        "Error rendering prompt: conversation roles must alternate user/assistant",
        TemplateError,
        "alternating",
    ),
    "assistants": (
        400,
        "Multi-part or consecutive assistant responses are not supported.",
        InvalidRequestError,
        "order",
    ),
    "orphan": (
        500,
        "Message has tool role, but there was no previous assistant message with a tool call! at row 319, column 120:",
        TemplateError,
        "tool message",
    ),
    "previous": (
        400,
        "llama.cpp does not support 'previous_response_id'.",
        InvalidRequestError,
        "does not store answers",
    ),
    "history": (
        500,
        "Prediction history node with id 'resp_1' not found in shard 'pack-0001'",
        ServerError,
        "store=False",
    ),
    "pixels": (400, "Image has too many pixels", InvalidRequestError, "smaller image"),
    "call": (
        500,
        "The model produced output that does not match the expected peg-native format",
        ServerError,
        "ask again",
    ),
}


@pytest.mark.parametrize("name", WORDS)
@IS_ASYNC
def test_the_hint_fits_the_words(name: str, is_async: bool) -> None:
    """The hint is the same in every endpoint's answer."""
    status, said, kind, word = WORDS[name]
    for form in FORMATS.values():
        with Loopback(routes={form.path: json_answer({"error": said}, status)}) as server:
            error = run(server.url, form, is_async=is_async, stream=False).error
        assert type(error) is kind
        assert word in error.hint


PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
PAGES = {
    413: "client_max_body_size", 502: "reach its server", 503: "reach its server", 504: "proxy_read_timeout", 524: "stream it",
    403: "access rules", 404: "base_url", 418: "base_url",
}  # fmt: skip


@pytest.mark.parametrize("status", PAGES)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_proxy_s_page_is_recognised(way: Way, status: int) -> None:
    """What to do is about the proxy; a model that still works for a proxy that gave up is not asked once more."""
    with Loopback(text_answer(PAGE.format(status), status, content_type="text/html")) as server:
        with pytest.raises(LMStudioError) as caught:
            way.ask(server.url, retry_attempts=2)
        assert len(server.requests) == (2 if status in {502, 503} else 1)
    assert PAGES[status] in caught.value.hint
    assert "web page" in caught.value.message


BARE = {413: "client_max_body_size", 502: "reach its server", 504: "stream it", 524: "stream it"}


@pytest.mark.parametrize("status", BARE)
@pytest.mark.parametrize("text", ["", "error code: 524", "upstream request timeout", "<!-- gone --><p>Gone</p>"])
def test_a_proxy_s_bare_text_is_recognised(status: int, text: str) -> None:
    """Cloudflare and Envoy answer programs in plain text, or in none."""
    for form in FORMATS.values():
        with Loopback(routes={form.path: text_answer(text, status)}) as server:
            error = run(server.url, form, is_async=False, stream=False).error
        assert error is not None
        assert BARE[status] in error.hint


# --- the product that answers ---

LISTS = ("/api/v1/models", "/api/v0/models")
NOT_FOUND = json_answer(
    {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}, 404, server="llama.cpp"
)
EMPTY = json_answer({"object": "list", "data": []}, server="llama.cpp")
FAILURES: dict[str, Any] = {
    "401": (json_answer({"error": {"message": "Invalid API Key"}}, 401, server="llama.cpp"), "send"),
    "404": (NOT_FOUND, "send"),
    "404 of the conversation": (NOT_FOUND, "conversation"),
    "500": (json_answer({"error": "It tipped over"}, 500, server="llama.cpp"), "send"),
    "load": (NOT_FOUND, "load"),
    "unload": (NOT_FOUND, "unload"),
    "download": (NOT_FOUND, "download"),
    "no model": (NOT_FOUND, "choose"),
    "unknown model": (NOT_FOUND, "get"),
    "page": ([head(content_type="text/html", server="llama.cpp", content_length=6) + b"<html>"], "send"),
    "cut": ([head(content_type="text/event-stream", server="llama.cpp") + b"data: {", CLOSE], "stream"),
    "silent": ([head(content_type="text/event-stream", server="llama.cpp") + b": \n\n", 1.0, CLOSE], "stream"),
}


@pytest.mark.parametrize("name", FAILURES)
@IS_ASYNC
def test_no_hint_speaks_of_lm_studio_where_another_product_answers(name: str, is_async: bool) -> None:
    """It is known from the answer's own head, or from one before."""
    answer, what = FAILURES[name]
    routes = {
        "/v1/models": EMPTY,
        **dict.fromkeys(LISTS, NOT_FOUND),
        "/v1/chat/completions": answer,
        "/api/v1/chat": answer,
    }
    calls: dict[str, Any] = {
        "send": lambda client: client.chat("m").user("Hi").send(),
        "stream": lambda client: client.chat("m").user("Hi").stream().until_done(),
        "conversation": lambda client: client.conversation("m").send("Hi"),
        "load": lambda client: client.models.load("m"),
        "unload": lambda client: client.models.unload("m"),
        "download": lambda client: client.models.download("m"),
        "choose": lambda client: client.chat().user("Hi").send(),
        "get": lambda client: client.models.get("m"),
    }
    with Loopback(NOT_FOUND, routes=routes) as server:
        error = failure(
            server.url, calls[what], is_async=is_async, timeout=0.3 if name == "silent" else PATIENCE, model=None
        )
    assert "LM Studio" not in error.hint
    assert "`lms" not in error.hint
    assert error.hint[0].isupper()


@IS_ASYNC
def test_a_product_found_in_a_model_list_is_remembered(is_async: bool) -> None:
    """vLLM names itself only as the owner of its models; a server that is gone later is still vLLM's."""
    listed = json_answer({"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]})
    with Loopback(
        json_answer({"detail": "Not Found"}, 404), routes={"/v1/models": listed, "/v1/chat/completions": [RESET]}
    ) as server:
        url = server.url
        error = failure(
            url,
            lambda client: client.chat("m").user("Hi").send(),
            first=lambda client: client.models.list(),
            is_async=is_async,
        )
    assert "vLLM's log" in error.hint


def failure(url: str, call: Any, *, is_async: bool, first: Any = None, **settings: Any) -> LMStudioError:
    """Do the calls with a new client and return the error of the last."""

    async def fail_async() -> LMStudioError:
        async with alm(url, **settings) as client:
            if first:
                await first(client)
            with pytest.raises(LMStudioError) as caught:
                await call(client)
        return caught.value

    if is_async:
        return asyncio.run(fail_async())
    with lm(url, **settings) as client:
        if first:
            first(client)
        with pytest.raises(LMStudioError) as caught:
            call(client)
    return caught.value


# --- what a message may hold ---

HOSTILE = "broke\n2026-01-01 ERROR root: all is lost\x1b[2J\x1b]52;c;cm0=\x07 \u202egnp.exe\x9b31m"


@pytest.mark.parametrize("name", FORMATS)
@IS_ASYNC
def test_control_characters_of_a_server_are_shown_escaped(
    name: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages and logs contain no forged line and nothing that a terminal obeys."""
    form = FORMATS[name]
    caplog.set_level(logging.DEBUG, "lmdeck")
    answers = [json_answer({"error": HOSTILE}, 500), text_answer(HOSTILE, 500), text_answer(HOSTILE, 200)]
    if form.failure is not None:
        answers.append([stream_of(form.failure(HOSTILE)), CLOSE])
    for answer in answers:
        with Loopback(routes={form.path: answer}) as server:
            error = run(server.url, form, is_async=is_async, stream=name in STREAMED).error
        assert error is not None
        for text in (str(error), *caplog.text.replace("\n", " \n").split(" \n")):
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", text)
        assert not any(line.startswith("2026-01-01 ERROR root") for line in caplog.text.splitlines())


TOKEN = "sk-lm-ABCDEFGH:ijklmnopqrst"


@pytest.mark.parametrize("name", FORMATS)
@IS_ASYNC
def test_a_token_that_a_server_quotes_is_hidden(name: str, is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """No part of it is in the message, the body, the traceback's text or the log."""
    caplog.set_level(logging.DEBUG, "lmdeck")
    form = FORMATS[name]
    said = f"Malformed LM Studio API token provided: {TOKEN}. Its id is sk-lm-ABCDEFGH."
    body = {"error": {"message": said, "code": "invalid_api_key", "given": [TOKEN, {TOKEN: 1}]}}
    answers = [json_answer(body, 401), json_answer(body, 200), text_answer(f"no {TOKEN}", 500), text_answer(TOKEN, 200)]
    if form.failure is not None:
        answers.append([stream_of(form.failure(said)), CLOSE])
    for answer in answers:
        with Loopback(routes={form.path: answer}) as server:
            error = run(server.url, form, is_async=is_async, stream=name in STREAMED, api_token=TOKEN).error
            assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert error is not None
        shown = f"{error} {error!r} {error.args} {vars(error)} {caplog.text}"
        assert "ABCDEFGH" not in shown
        assert "ijklmnop" not in shown


@pytest.mark.parametrize(
    "pasted", ["Bearer {}", "bearer  {}", "Bearer Bearer {}", "Authorization: Bearer {}", '"{}"', " {}\n", "{}"]
)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_token_pasted_from_a_command_is_cleaned(way: Way, pasted: str) -> None:
    """The scheme in front of it and quotes around it are removed."""
    with Loopback(hello) as server:
        way.ask(server.url, api_token=pasted.format(TOKEN))
        assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_scheme_without_a_token_is_no_token() -> None:
    """It is told at once."""
    with pytest.raises(ConfigurationError, match="api_token"):
        lm("http://localhost:1", api_token="Bearer ")


# --- the order of a history ---

CALL = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "find", "arguments": "{}"}}
USER = {"role": "user", "content": "Hi"}
RESULT = {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "one"}
ASKED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SAID = {"role": "assistant", "content": "Hi"}
ORDERS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "good": ([{"role": "system", "content": "Be brief."}, USER, ASKED, RESULT, SAID, USER], []),
    "two users": ([USER, USER], []),
    "orphan": ([USER, RESULT], ["orphan_tool_result"]),
    "orphan of another call": ([USER, ASKED, {**RESULT, "tool_call_id": "other"}], ["orphan_tool_result"]),
    "two assistants": ([USER, SAID, SAID, USER], ["role_order"]),
    "late system": ([USER, {"role": "system", "content": "Be brief."}], ["role_order"]),
    "no result": ([USER, ASKED, USER], ["role_order"]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_odd_order_of_a_chat_is_reported(name: str) -> None:
    """It is sent as it is: some templates take it."""
    messages, codes = ORDERS[name]
    with Loopback(hello) as server, lm(server.url) as client:
        reply = client.chat().with_messages(messages).send()
        assert [each["role"] for each in server.requests[0].json["messages"]] == [each["role"] for each in messages]
    assert [problem.code for problem in reply.problems] == codes


def test_a_result_without_its_call_is_reported_by_the_other_endpoints() -> None:
    """`/v1/responses`, unless it goes on from a stored response, and `/v1/messages`."""
    output = {"type": "function_call_output", "call_id": "x", "output": "one"}
    call = {"type": "function_call", "call_id": "x", "name": "find", "arguments": "{}"}
    response = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": "Hi"}]}
    with Loopback(json_answer(response)) as server, lm(server.url) as client:
        asked: list[tuple[list[Any], dict[str, Any], list[str]]] = [
            ([output], {}, ["orphan_tool_result"]),
            ([call, output], {}, []),
            ([output], {"previous_response_id": "resp_0"}, []),
        ]
        for given, options, codes in asked:
            reply = client.responses.create(input=given, **options)
            assert [problem.code for problem in reply.problems] == codes
    block = {"type": "tool_result", "tool_use_id": "x", "content": "one"}
    use = {"type": "tool_use", "id": "x", "name": "find", "input": {}}
    message = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
    with Loopback(json_answer(message)) as server, lm(server.url) as client:
        lonely = client.messages.create(messages=[{"role": "user", "content": [block]}])
        both = client.messages.create(
            messages=[{"role": "assistant", "content": [use]}, {"role": "user", "content": [block]}]
        )
    assert [problem.code for problem in lonely.problems] == ["orphan_tool_result"]
    assert both.problems == []


# --- models and settings ---

UNLOADS = [
    json_answer({"error": {"message": "Model 'x' is not loaded", "code": None}}, 400),
    json_answer({"error": {"message": "No such instance: x", "type": "invalid_request"}}, 400),
    json_answer({"error": {"message": "Model not found", "code": "model_not_found"}}, 404),
    json_answer({"error": "Model instance not found"}, 404),
]


@pytest.mark.parametrize("answer", UNLOADS)
@IS_ASYNC
def test_an_unload_of_what_is_not_loaded_says_where_to_look(answer: Any, is_async: bool) -> None:
    """The hint is the same, whatever the words."""
    routes = {"/api/v1/models/unload": answer, "/api/v1/models": json_answer({"models": []})}
    with Loopback(routes=routes) as server:
        error = failure(server.url, lambda client: client.models.unload("x"), is_async=is_async)
    assert isinstance(error, ModelNotFoundError)
    assert "lmdeck ps" in error.hint
    assert error.url == f"{server.url}/api/v1/models/unload"


def test_a_port_that_is_none_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line names its option instead of a keyword argument."""
    assert lmdeck(["--port", "99999", "ps"]) == 2
    said = capsys.readouterr().err
    assert "--port" in said
    assert "65535" in said
    assert "keyword" not in said


@IS_ASYNC
def test_an_embedding_model_that_cannot_be_known_is_asked_for_by_name(is_async: bool) -> None:
    """A list of ids does not tell what they are for; with one alone there is no question."""
    vector = json_answer({"data": [{"index": 0, "embedding": [1.0]}], "model": "a"})
    for ids, is_asked in ((["a"], True), (["a", "b"], False)):
        listed = json_answer({"object": "list", "data": [{"id": each} for each in ids]})
        missing = json_answer({"error": "Unexpected endpoint or method."})
        routes = {"/v1/models": listed, "/v1/embeddings": vector}
        with Loopback(missing, routes=routes) as server:
            outcome = run(server.url, FORMATS["embeddings"], is_async=is_async, stream=False)
            assert outcome.error is None
            if not is_asked:
                error = failure(server.url, lambda client: client.embed("Hi"), is_async=is_async, model=None)
                assert isinstance(error, NoModelLoadedError)
                assert "model=" in error.hint
                assert "Download" not in error.hint
            else:
                with lm(server.url, model=None) as client:
                    assert client.embed("Hi").model == "a"


@IS_ASYNC
@pytest.mark.parametrize(
    ("status", "downloaded", "settings", "phase"),
    [
        ("paused", 50, {"total_timeout": 1.5}, "total"),
        ("downloading", 100, {"timeout": 1.5}, "idle"),
        ("downloading", 100, {"total_timeout": 1.5}, "total"),
    ],
)
def test_a_download_that_does_not_end_is_not_waited_for_for_ever(
    status: str, downloaded: int, settings: dict[str, Any], phase: str, is_async: bool
) -> None:
    """`total_timeout` bounds the wait, and at 100 % `timeout` does; the error names the job, and says if it is paused."""
    job = {"job_id": "job_1", "status": status, "downloaded_bytes": downloaded, "total_size_bytes": 100}
    with Loopback(json_answer(job)) as server:
        for call in (lambda c: c.models.download("x"), lambda c: c.models.wait_for_download("job_1")):
            error = failure(server.url, call, is_async=is_async, **settings)
            assert isinstance(error, RequestTimeoutError)
            assert (error.phase, error.seconds) == (phase, 1.5)
            assert "job_1" in error.message + error.hint
            assert ("paused" in error.message) == (status == "paused")


@IS_ASYNC
def test_a_status_that_does_not_come_names_the_download(is_async: bool) -> None:
    with Loopback([HANG]) as server:
        error = failure(server.url, lambda c: c.models.wait_for_download("job_1"), is_async=is_async, total_timeout=0.3)
    assert isinstance(error, RequestTimeoutError)
    assert "wait_for_download('job_1')" in error.hint


def test_the_error_names_a_product_that_lacks_the_endpoint() -> None:
    """The message does not call LM Studio too old."""
    routes = {"/v1/models": EMPTY, **dict.fromkeys(LISTS, NOT_FOUND)}
    with Loopback(NOT_FOUND, routes=routes) as server:
        error = failure(server.url, lambda client: client.models.load("m"), is_async=False)
    assert isinstance(error, EndpointNotFoundError)
    assert error.hint.startswith("This server is llama.cpp, which cannot load")
