"""The gateway's cache: what is repeated is answered at once, in the client's format, and to its own key only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bodies import chunk
from gateways import MODEL, Answer, GatewayProcess, config_of, gateway
from lmdeck.testing import FakeLMStudio

ONCE = {"temperature": 0}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


@pytest.fixture(scope="module")
def running(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    text = config_of([fake], '[cache]\nenabled = true\nurl = "memory:"\n[routing]\nfaults = 1000')
    with gateway(tmp_path_factory.mktemp("gateway"), text) as process:
        yield process


@pytest.fixture(autouse=True)
def clean(fake: FakeLMStudio) -> Iterator[None]:
    yield
    fake.reset()


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
    """In each wire format; a stream as a stream."""
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


def test_what_does_not_repeat_itself_bypasses_the_cache(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("one").reply("two").reply("three")
    assert [result(running.chat("No seed")) for _ in range(2)] == ["bypass", "bypass"]
    kept = {"headers": {"Cache-Control": "max-age=60"}}
    assert [result(running.chat("No seed", **kept)) for _ in range(2)] == ["miss", "hit"]


def test_the_header_of_http_is_understood(fake: FakeLMStudio, running: GatewayProcess) -> None:
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
