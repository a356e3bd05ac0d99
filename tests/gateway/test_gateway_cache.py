"""The gateway's cache: what is repeated is answered at once, in the client's format, and to its own key only."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bodies import chunk
from gateways import MODEL, PATIENCE, Answer, GatewayProcess, config_of, gateway
from lmdeck.cache import Cache
from lmdeck.gateway.admission import RequestOutcome
from lmdeck.gateway.answer_cache import CachedAnswers
from lmdeck.gateway.request_handlers import GatewayAnswer, GatewayRequest
from lmdeck.relay import route_of
from lmdeck.testing import FakeLMStudio

ONCE = {"temperature": 0}
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def running(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    text = config_of([fake], '[cache]\nenabled = true\nurl = "memory:"\n[routing]\nfaults = 1000')
    with gateway(tmp_path_factory.mktemp("gateway"), text, is_measured=True) as process:
        yield process


def asked(fake: FakeLMStudio) -> int:
    return sum(request.wants_answer for request in fake.requests)


def result(answer: Answer) -> str:
    return answer.headers["x-lmdeck-cache"]


PATHS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50},
    "/v1/responses": {"input": "Hi", "store": False},
    "/v1/completions": {"prompt": "Hi"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_a_repeated_request_is_answered_byte_for_byte(
    fake: FakeLMStudio, running: GatewayProcess, path: str, stream: bool
) -> None:
    """The answer is equal in each wire format, and a stream is repeated as a stream."""
    fake.reply("Hello there.")
    body = {"model": MODEL, **PATHS[path], **ONCE, "stream": stream}
    first, second = (running.request("POST", path, body) for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    assert (result(first), result(second)) == ("miss", "hit")
    assert second.body == first.body
    assert len(second.body) > 100
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["age"].isdigit()
    assert asked(fake) == 1


def test_requests_with_random_answers_bypass_the_cache(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("one").reply("two").reply("three")
    assert [result(running.chat("No seed")) for _ in range(2)] == ["bypass", "bypass"]
    kept = {"headers": {"Cache-Control": "max-age=60"}}
    assert [result(running.chat("No seed", **kept)) for _ in range(2)] == ["miss", "hit"]


def test_cache_control_headers_are_obeyed(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("one").reply("two")

    def ask(control: str) -> Answer:
        return running.chat("Control", headers={"Cache-Control": control}, **ONCE)

    missing = ask("only-if-cached")
    assert (missing.status, missing.json["error"]["code"]) == (504, missing.json["error"]["code"])
    assert result(ask("no-store")) == "bypass"
    assert result(ask("no-cache")) == "miss"
    assert ask("only-if-cached").json["choices"][0]["message"]["content"] == "two"
    assert asked(fake) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_equal_requests_at_once_are_one_for_the_host(fake: FakeLMStudio, running: GatewayProcess, stream: bool) -> None:
    fake.at("/v1/chat/completions").reply("Hello " * 50)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: running.chat("Together", stream=stream, **ONCE), range(100)))
    assert {answer.status for answer in answers} == {200}
    texts = {answer.text if stream else answer.json["choices"][0]["message"]["content"] for answer in answers}
    assert {text.strip() for text in texts} == {("Hello " * 50).strip()}
    assert asked(fake) == 1
    assert [result(answer) for answer in answers].count("miss") == 1


@pytest.mark.parametrize("fault", ["server_error", "cut", "channel_error"])
def test_failures_are_not_kept(fake: FakeLMStudio, running: GatewayProcess, fault: str) -> None:
    for _ in range(3):
        fake.fail(fault, reply="one two three four")
    fake.reply("Hello.")
    answers = [running.chat(f"Fails by {fault}", stream=True, **ONCE) for _ in range(6)]
    assert answers[-1].text == "Hello."
    assert result(answers[-1]) == "hit"


def test_a_truncated_answer_is_not_kept(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.at("/v1/chat/completions").frames(chunk("one"), chunk(finish="length"))
    answers = [running.chat("Truncated", stream=True, **ONCE) for _ in range(2)]
    assert [result(answer) for answer in answers] == ["miss", "miss"]


def key(folder: Path, name: str) -> str:
    command = [
        sys.executable,
        "-m",
        "lmdeck",
        "gateway",
        "keys",
        "create",
        name,
        "--config",
        str(folder / "gateway.toml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return next(word for word in done.stdout.split() if word.startswith("lmk_"))


@pytest.mark.parametrize("shared", [False, True])
def test_a_key_sees_its_own_answers_only(fake: FakeLMStudio, tmp_path: Path, shared: bool) -> None:
    """Unless the cache is shared; two workers and a restart share the file."""
    more = f"[cache]\nenabled = true\nshared = {str(shared).lower()}\n[auth]\nrequired = true\n"
    (tmp_path / "gateway.toml").write_text(config_of([fake], more))
    keys = {name: {"Authorization": f"Bearer {key(tmp_path, name)}"} for name in ("alice", "bob")}
    fake.at("/v1/chat/completions").reply("Hello.")
    with gateway(tmp_path, config_of([fake], more)) as running:
        assert result(running.chat("Mine", headers=keys["alice"], **ONCE)) == "miss"
        assert result(running.chat("Mine", headers=keys["alice"], **ONCE)) == "hit"
        assert result(running.chat("Mine", headers=keys["bob"], **ONCE)) == ("hit" if shared else "miss")
    if shared:
        return
    with gateway(tmp_path, config_of([fake], more), "--workers", "2") as running:
        for _ in range(4):
            assert result(running.chat("Mine", headers=keys["alice"], **ONCE)) == "hit"


def test_a_new_key_with_the_name_of_a_revoked_one_starts_anew(fake: FakeLMStudio, tmp_path: Path) -> None:
    """It may belong to somebody else."""
    more = "[cache]\nenabled = true\n[auth]\nrequired = true\n"
    (tmp_path / "gateway.toml").write_text(config_of([fake], more))
    fake.at("/v1/chat/completions").reply("Hello.")
    results = []
    for _ in range(2):
        header = {"Authorization": f"Bearer {key(tmp_path, 'alice')}"}
        with gateway(tmp_path, config_of([fake], more)) as running:
            results.append([result(running.chat("Mine", headers=header, **ONCE)) for _ in range(2)])
        revoke = ["gateway", "keys", "revoke", "alice", "--config", str(tmp_path / "gateway.toml")]
        subprocess.run([sys.executable, "-m", "lmdeck", *revoke], check=True, cwd=tmp_path, capture_output=True)
    assert results == [["miss", "hit"]] * 2


@pytest.mark.parametrize("field", ["user", "metadata"])
def test_request_fields_that_an_answer_repeats_are_in_the_key(
    fake: FakeLMStudio, running: GatewayProcess, field: str
) -> None:
    """The Responses API returns these fields."""
    fake.reply("one").reply("two")
    body = {"model": MODEL, "input": f"With {field}", "store": False, **ONCE}
    values: list[Any] = ["a", "b"] if field == "user" else [{"a": "b"}, {"a": "c"}]
    answers = [running.request("POST", "/v1/responses", {**body, field: value}) for value in values]
    assert [result(answer) for answer in answers] == ["miss", "miss"]


def listing(quantization: str) -> dict[str, Any]:
    return {"models": [{"type": "llm", "key": MODEL, "quantization": {"name": quantization, "bits_per_weight": 4}}]}


def test_another_quantization_is_not_answered_from_the_cache(tmp_path: Path) -> None:
    """The cache misses as soon as the host lists the model with another quantization."""
    with FakeLMStudio(seed=0) as fake:
        fake.at("/api/v1/models").body(listing("Q4_K_M"))
        fake.reply("small").reply("large")
        more = '[cache]\nenabled = true\nurl = "memory:"\n[routing]\npoll = 0.1\nprobe = 0.1'
        with gateway(tmp_path, config_of([fake], more)) as running:
            assert [result(running.chat(**ONCE)) for _ in range(2)] == ["miss", "hit"]
            fake.reset()
            fake.reply("large")
            fake.at("/api/v1/models").body(listing("Q8_0"))
            deadline = time.monotonic() + PATIENCE
            while result(answer := running.chat(**ONCE)) == "hit":
                assert time.monotonic() < deadline
            assert answer.json["choices"][0]["message"]["content"] == "large"
            assert result(running.chat(**ONCE)) == "hit"


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "one", "two", "down"]), st.sampled_from(["Q4", "Q8", "F16"])), max_size=30
)


@settings(max_examples=60)
@given(steps=STEPS, seed=st.integers(0, 9))
def test_no_answer_of_a_variant_that_no_host_has_is_used(steps: list[tuple[str, str]], seed: int) -> None:
    """Two hosts change the variant of one model and go away: an answer is always of a variant that a usable host has."""
    hosts: dict[str, str] = {"one": "Q4", "two": "Q4"}
    choose = random.Random(seed).choice

    async def variants(_: str) -> set[str] | None:
        return set(hosts.values()) or None

    async def answer(request: GatewayRequest) -> GatewayAnswer:
        request.outcome.variant = choose(sorted(hosts.values()))
        request.outcome.finish_reason = "stop"

        async def chunks() -> AsyncGenerator[bytes, None]:
            yield request.outcome.variant.encode()

        return GatewayAnswer(status=200, headers={}, chunks=chunks())

    async def ask(cached: CachedAnswers) -> bytes:
        given = {"model": "m", **ONCE}
        request = GatewayRequest(
            outcome=RequestOutcome(request_id="r", started_at=0.0),
            method="POST",
            route=route_of("POST", "/v1/chat/completions"),
            headers={},
            body=msgspec.json.encode(given),
            fields=given,
            model="m",
        )
        got = await cached(request)
        return b"".join([piece async for piece in got.chunks])

    async def main() -> None:
        cached = CachedAnswers(Cache.open("memory:"), answer, variants, is_shared=True)
        for what, variant in steps:
            if what == "down":
                hosts.clear()
            elif what != "ask":
                hosts[what] = variant
            elif hosts:
                assert (await ask(cached)).decode() in hosts.values()

    asyncio.run(main())
