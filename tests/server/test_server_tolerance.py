"""The tolerant server takes what other clients send and LM Studio refuses; counting and base64, which they need."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from lmdeck import LMStudio, Reply
from lmdeck.engine import EngineServer
from lmdeck.engine.tolerance import ToleranceMiddleware
from lmdeck.server.app import create_app
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.server.tool_use import DefaultToolUse
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from wire_tools import Parrot

SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "name": "look", "parameters": SCHEMA}
FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "Claude Code's web search": (
        "/v1/messages",
        {
            "max_tokens": 8,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        },
    ),
    "Codex's custom tool and verbosity": (
        "/v1/responses",
        {
            "input": "Hi",
            "tools": [FUNCTION, {"type": "custom", "name": "apply_patch"}, {"type": "web_search"}],
            "text": {"verbosity": "low"},
        },
    ),
    "OpenAI's JSON mode": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}},
    ),
    "a named tool": (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
        },
    ),
}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[bool, str]]:
    """The same model behind a strict and a tolerant server."""
    with (
        BackgroundServer(create_app(DefaultToolUse(Parrot())), listen()) as strict,
        BackgroundServer(create_app(DefaultToolUse(Parrot()), middleware=ToleranceMiddleware), listen()) as tolerant,
    ):
        yield {False: strict.base_url, True: tolerant.base_url}


def test_a_tolerant_server_waits_for_no_body_for_ever(urls: dict[bool, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmdeck._incoming.disconnect.BODY_SECONDS", 0.1)
    monkeypatch.setattr("lmdeck._incoming.disconnect.DRAIN_SECONDS", 0.1)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for length, status in ((900, b"408"), (8 << 30, b"413")):
        with socket.create_connection(("127.0.0.1", urlsplit(urls[True]).port or 0), timeout=PATIENCE) as late:
            late.sendall(head + b"Content-Length: %d\r\n\r\n{" % length)
            assert late.recv(1 << 16).split(b" ")[1] == status


def post(url: str, body: object) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return urllib3.request("POST", url, body=data, headers={"content-type": "application/json"}, retries=False)


@pytest.mark.parametrize("case", FOREIGN)
def test_requests_of_other_clients_are_taken(urls: dict[bool, str], case: str) -> None:
    """The tolerant server accepts what the strict server refuses, as LM Studio does."""
    path, body = FOREIGN[case]
    refused, taken = post(urls[False] + path, body), post(urls[True] + path, body)
    assert refused.status == 400, refused.data
    assert taken.status == 200, taken.data


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"{}", b'{"messages": 5}'])
def test_what_nobody_understands_is_refused_in_the_same_words(urls: dict[bool, str], body: bytes) -> None:
    """Tolerance is not silence."""
    answers = [post(f"{url}/v1/chat/completions", body) for url in urls.values()]
    assert [answer.status for answer in answers] == [400, 400]


def test_a_strict_server_counts_no_tokens(urls: dict[bool, str]) -> None:
    """LM Studio answers with status 200 and an error."""
    answer = post(f"{urls[False]}/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]})
    assert "Unexpected endpoint" in answer.json()["error"]


def test_the_fake_packs_vectors_where_they_are_asked_for_in_base64() -> None:
    """OpenAI's packages ask for it by default; the numbers are the same."""
    with FakeLMStudio() as fake:
        model = "text-embedding-nomic-embed-text-v1.5"
        url = f"{fake.base_url}/v1/embeddings"
        plain = post(url, {"model": model, "input": ["a", "b"]}).json()["data"]
        packed = post(url, {"model": model, "input": ["a", "b"], "encoding_format": "base64"}).json()["data"]
        for numbers, text in zip(plain, packed, strict=True):
            data = base64.b64decode(text["embedding"])
            unpacked = struct.unpack(f"<{len(data) // 4}f", data)
            assert unpacked == pytest.approx(numbers["embedding"], abs=1e-6)
        with fake.client() as lm:
            assert len(lm.embed(["a", "b"], model=model, encoding_format="base64").vectors) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_the_fake_obeys_the_limit_of_tokens(stream: bool) -> None:
    """A piece of text is a token; the finish reason says so, and calls are never cut."""
    with FakeLMStudio() as fake, fake.client() as lm:

        def ask(limit: int) -> Reply:
            fake.reply("one two three four five")
            chat = lm.chat().user("Hi").with_options(max_tokens=limit)
            return chat.stream().until_done() if stream else chat.send()

        whole = ask(1000)
        assert (whole.content, whole.finish_reason) == ("one two three four five", "stop")
        assert whole.usage is not None
        assert whole.usage.completion_tokens > 2
        for limit in (1, 2):  # the pieces are cut at random
            reply = ask(limit)
            assert whole.content.startswith(reply.content)
            assert len(reply.content) < len(whole.content)
            assert reply.finish_reason == "length"
            assert reply.usage is not None
            assert reply.usage.completion_tokens == limit
        fake.reply("one two three four five")
        completion = lm.complete("Hi", max_tokens=2)
        assert completion.finish_reason == "length"
        assert len(completion.text) < len(whole.content)
        fake.tool_call("look", city="a city with a long name")
        assert lm.chat().user("Hi").with_tools([{"name": "look"}]).with_options(max_tokens=1).send().tool_calls


@pytest.mark.engine
def test_the_engine_counts_tokens_as_usage_does(engine: EngineServer) -> None:
    """The count is exact in both forms, with template and tools."""
    look = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": SCHEMA}}
    with LMStudio(base_url=engine.base_url) as lm:
        for chat in (
            lm.chat().user("Say hello."),
            lm.chat().with_system("Be brief.").user("Hi").assistant("Hello.").user("And now?").with_tools([look]),
        ):
            counted = lm.count_tokens(chat)
            usage = chat.with_options(max_tokens=16, temperature=0).send().usage
            assert usage is not None
            assert (counted.is_exact, counted.tokens) == (True, usage.prompt_tokens)
    counted = post(
        f"{engine.base_url}/v1/messages/count_tokens",
        {"model": engine.model, "system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]},
    ).json()
    assert counted["input_tokens"] > 5
