"""The gateway in front of one host: every endpoint, repaired, in the client's format."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
import urllib3

from asking import last_asked
from gateways import MODEL, PATIENCE, Answer, GatewayProcess, config_of, gateway
from lmdeck.gateway import Config, create_app
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def running(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    text = config_of([fake], '[aliases]\n"gpt-4o" = "qwen2.5-7b-instruct"\nfast = ["gone", "qwen2.5-7b-instruct"]')
    with gateway(tmp_path_factory.mktemp("gateway"), text, is_measured=True) as process:
        yield process


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_in_the_text_becomes_a_call(fake: FakeLMStudio, running: GatewayProcess, stream: bool) -> None:
    fake.tool_call("get_weather", city="Paris", dialect="qwen3-coder-xml")
    answer = running.chat(tools=[WEATHER], stream=stream)
    parts = [
        choice.get("message") or choice["delta"]
        for event in (answer.events or [answer.json])
        for choice in event["choices"]
    ]
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
    assert [call["name"] for call in calls if call.get("name")] == ["get_weather"]
    assert "".join(call.get("arguments") or "" for call in calls) == '{"city": "Paris"}'
    assert answer.headers["x-lmdeck-host"] == "a"
    assert answer.headers["x-lmdeck-attempts"] == "1"
    assert answer.headers["x-lmdeck-queue-ms"].isdigit()


def test_a_slow_reader_gets_everything_in_order(fake: FakeLMStudio, running: GatewayProcess) -> None:
    """The host's connection is paused meanwhile, and what it sent is neither lost nor changed in its order."""
    words = " ".join(map(str, range(20_000)))
    fake.reply(words, tokens_per_second=None)
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}).encode()
    with running.connect() as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        response = HTTPResponse(client)
        response.begin()
        time.sleep(0.3)  # so that the buffers on the way fill up
        assert Answer(response.status, {}, response.read()).text == words


@pytest.mark.parametrize("name", ["gpt-4o", "fast", MODEL])
def test_an_alias_names_the_first_model_that_is_there(fake: FakeLMStudio, running: GatewayProcess, name: str) -> None:
    fake.reply("Hello")
    assert running.chat(model=name).json["choices"][0]["message"]["content"] == "Hello"
    assert last_asked(fake).body["model"] == MODEL


def test_a_request_without_a_model_goes_to_a_loaded_one(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("Hello")
    assert running.chat(model="").status == 200
    assert last_asked(fake).body["model"] == MODEL


def test_an_unknown_model_is_an_error_that_lists_the_models(running: GatewayProcess) -> None:
    answer = running.chat(model="nope")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    assert MODEL in answer.json["error"]["message"]


def test_model_lists_name_each_model_once_and_the_aliases(running: GatewayProcess) -> None:
    listed = [entry["id"] for entry in running.get("/v1/models").json["data"]]
    assert listed == [MODEL, "text-embedding-nomic-embed-text-v1.5", "gpt-4o", "fast"]
    assert running.get("/api/v1/models").json["models"][0]["loaded_instances"][0]["id"] == MODEL
    assert running.get("/api/v0/models").json["data"][0]["state"] == "loaded"


def test_tokens_are_counted_for_anthropic_clients(running: GatewayProcess) -> None:
    """Claude Code asks for it; LM Studio does not have it."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 70}], "system": "Be brief."}
    counted = running.request("POST", "/v1/messages/count_tokens", body)
    assert 70 <= counted.json["input_tokens"] <= 140


def test_unknown_endpoints_are_passed_to_a_host_that_has_the_model(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("Hello")
    answer = running.request("POST", "/api/v1/chat", {"model": "gpt-4o", "input": "Hi"})
    assert answer.json["output"][0]["content"] == "Hello"
    assert running.request("POST", "/v1/no-such-thing", {"model": MODEL}).status == 404


def test_the_clients_key_does_not_leave_the_gateway(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("Hello")
    running.chat(headers={"Authorization": "Bearer sk-secret", "x-api-key": "sk-secret", "Cookie": "a=sk-secret"})
    assert "sk-secret" not in str([request.headers for request in fake.requests])
    log = running.config.with_name("gateway.log").read_text()
    assert "sk-secret" not in log


def test_health_and_readiness(running: GatewayProcess) -> None:
    assert running.get("/health").json == {"status": "ok"}
    ready = running.get("/ready")
    assert (ready.status, ready.json["usable_hosts"]) == (200, 1)


def test_it_is_an_application_for_other_servers(fake: FakeLMStudio) -> None:
    """Clients that leave stop the model on the server of the fake, too."""
    config = Config.parse(config_of([fake]))
    with BackgroundServer(create_app(config), listen(), lifespan=True) as server:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        url = f"{server.base_url}/v1/chat/completions"
        fake.reply("Hello").reply("word " * 500, tokens_per_second=5)
        answer = urllib3.request("POST", url, json=body, timeout=PATIENCE)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
        with urllib3.PoolManager() as pool:
            stream = pool.request("POST", url, json={**body, "stream": True}, preload_content=False, timeout=PATIENCE)
            assert stream.read1(10)
            stream.close()
        limit = time.monotonic() + PATIENCE
        while fake.in_progress:
            assert time.monotonic() < limit
            time.sleep(0.02)
