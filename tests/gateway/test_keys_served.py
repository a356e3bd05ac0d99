"""Keys, limits and usage of a running gateway, as clients see them."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from gateways import GatewayProcess, config_of, gateway
from lmdeck._recordings.cassette import load
from lmdeck._usage_store import KeyLimits, open_store
from lmdeck.gateway.keys import new_key
from lmdeck.testing import FakeLMStudio

MODEL = "qwen2.5-7b-instruct"


@pytest.fixture
def fake() -> Any:
    with FakeLMStudio() as running:
        yield running


@pytest.fixture
def text(fake: FakeLMStudio, tmp_path: Path) -> str:
    more = f'[auth]\nrequired = true\n[store]\nurl = "sqlite:///{tmp_path / "gateway.db"}"\n'
    return config_of([fake], more)


@pytest.fixture
def create(tmp_path: Path) -> Callable[..., str]:
    def create(name: str = "alice", **more: Any) -> str:
        secret, key = new_key(name, **more)
        with open_store(tmp_path / "gateway.db") as store:
            store.add_key(key)
        return secret

    return create


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_page_that_rebinds_its_name_is_no_operator(text: str, tmp_path: Path) -> None:
    """Its browser runs on the gateway's machine, where programs are operators."""
    rebound = {"Host": "rebound.evil.example", "Origin": "http://rebound.evil.example", "Sec-Fetch-Site": "same-origin"}
    with gateway(tmp_path, text) as running:
        for path in ("/gateway/status", "/gateway/config", "/dashboard", "/metrics"):
            assert (running.get(path, **rebound).status, running.get(path).status) == (403, 200)
        assert running.request("PUT", "/gateway/config", b"", **rebound).status == 403
        assert running.get("/gateway/status", Host="gateway:4000").status == 200


def test_both_clients_use_a_key_and_get_their_own_errors(
    fake: FakeLMStudio, text: str, create: Callable[..., str], tmp_path: Path
) -> None:
    """Answers with the headers of the limits; 401, 403 and 429 as each client knows them."""
    import anthropic  # whose 1,500 modules take a second

    fake.reply("Hello")
    fake.reply("Hello")
    secret = create(models=("qwen*",), limits=KeyLimits(requests_per_minute=2, tokens_per_day=100_000))
    question: Any = [{"role": "user", "content": "Hi"}]
    with (
        gateway(tmp_path, text) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=secret, max_retries=0) as for_openai,
        anthropic.Anthropic(base_url=running.url, api_key=secret, max_retries=0) as for_anthropic,
    ):
        raw = for_openai.chat.completions.with_raw_response.create(model=MODEL, messages=question)
        assert raw.parse().choices[0].message.content == "Hello"
        assert raw.headers["x-ratelimit-limit-requests"] == "2"
        assert raw.headers["x-ratelimit-remaining-requests"] == "1"
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 100_000
        message = for_anthropic.messages.create(model=MODEL, messages=question, max_tokens=50)
        assert message.content[0].text == "Hello"
        with pytest.raises(openai.RateLimitError, match="2 requests a minute") as limited:
            for_openai.chat.completions.create(model=MODEL, messages=question)
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
        with pytest.raises(anthropic.RateLimitError, match="2 requests a minute"):
            for_anthropic.messages.create(model=MODEL, messages=question, max_tokens=50)
        with pytest.raises(openai.PermissionDeniedError, match="may not use the model"):
            for_openai.chat.completions.create(model="text-embedding-nomic-embed-text-v1.5", messages=question)
        with pytest.raises(openai.AuthenticationError, match="not a key of this gateway"):
            for_openai.with_options(api_key="sk-none").models.list()
        with pytest.raises(anthropic.AuthenticationError, match="not a key of this gateway"):
            for_anthropic.with_options(api_key="sk-none").messages.create(model=MODEL, messages=question, max_tokens=50)
    with open_store(tmp_path / "gateway.db") as store:
        (row,) = store.usage(["key", "model"])
    assert (row.group, row.requests) == ({"key": "alice", "model": MODEL}, 2)
    assert all(secret not in json.dumps(dict(request.headers)) for request in fake.requests)
    assert secret not in (tmp_path / "gateway.log").read_text()


@pytest.mark.parametrize("streams", [True, False])
def test_a_failure_is_stored_with_its_host_and_recording(
    fake: FakeLMStudio, text: str, create: Callable[..., str], tmp_path: Path, streams: bool
) -> None:
    """`lmdeck errors` names it, and `lmdeck replay` reads it; without the key of the client."""
    fake.fail("cut", after_chunks=2).repeat()
    secret = create()
    recording = text + f'recordings = "{tmp_path / "failures"}"\n'
    with gateway(tmp_path, recording) as running:
        failed = running.chat("My prompt", headers=bearer(secret), stream=streams)
        assert failed.status == (200 if streams else 502)
        assert b"error" in failed.body
        request_id = failed.headers["x-request-id"]
    with open_store(tmp_path / "gateway.db") as store:
        (failure,) = store.failures()
        (record,) = store.requests(since=0)
    assert (failure.id, failure.key, failure.host, failure.model) == (request_id, "alice", "a", MODEL)
    assert record.error == failure.kind
    (exchange,) = load(failure.cassette)
    assert exchange.request["messages"][0]["content"] == "My prompt"
    assert secret not in Path(failure.cassette).read_text()


def test_what_a_client_has_received_is_stored_after_kill(
    fake: FakeLMStudio, text: str, create: Callable[..., str], tmp_path: Path
) -> None:
    """It holds at three random moments under load, and the keys work at once after each start."""
    secret = create()
    fake.reply("One two three").repeat()
    received: list[str] = []
    moments = random.Random(17)
    for _ in range(3):
        with gateway(tmp_path, text) as running:
            clients = [
                threading.Thread(target=ask_until_cut, args=(running, secret, n % 2 == 0, received)) for n in range(6)
            ]
            for client in clients:
                client.start()
            wanted = len(received) + moments.randrange(5, 30)
            limit = time.monotonic() + 60
            while len(received) < wanted and time.monotonic() < limit:
                time.sleep(0.005)
            running.process.kill()
            for client in clients:
                client.join(60)
    with open_store(tmp_path / "gateway.db") as store:
        rows = {record.id for record in store.requests(since=0, limit=100_000)}
        (total,) = store.usage([])
        assert [key.name for key in store.list_keys()] == ["alice"]
    assert received
    assert set(received) <= rows
    assert total.requests == len(rows)


def ask_until_cut(running: GatewayProcess, secret: str, streams: bool, received: list[str]) -> None:
    """Ask again and again; note the id of each request that was answered completely."""
    while True:
        try:
            answer = running.chat(headers=bearer(secret), stream=streams, max_tokens=5)
        except Exception:
            return
        if answer.status == 200:
            received.append(answer.headers["x-request-id"])
