"""`/metrics`, the live requests, and what operators may do about them."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bodies import chunk
from gateways import MODEL, PATIENCE, Answer, GatewayProcess, config_of, gateway
from lmdeck._usage_store import open_store
from lmdeck.testing import FakeLMStudio

PROMTOOL = shutil.which("promtool")


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


def value(page: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels."""
    found = re.findall(rf"^{name}(?:\{{(.*?)\}})? (\S+)$", page, re.MULTILINE)
    wanted = [f'{key}="{label}"' for key, label in labels.items()]
    return sum(float(number) for given, number in found if all(each in given for each in wanted))


@pytest.mark.parametrize("workers", [1, 2])
def test_metrics_are_those_of_all_processes(fake: FakeLMStudio, tmp_path: Path, workers: int) -> None:
    """Any process can be scraped, and promtool accepts the text."""
    fake.at("/v1/chat/completions").reply("Hello there.")
    with gateway(tmp_path, config_of([fake]), "--workers", str(workers)) as running:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: running.chat(f"Hi {n}", stream=bool(n % 2)), range(24)))
        assert {answer.status for answer in answers} == {200}
        assert running.chat(model="nope").status == 404
        for _ in range(4):
            answer = running.get("/metrics")
            assert answer.status == 200
            page = answer.body.decode()
            assert value(page, "lmdeck_gateway_requests_total", status="200", host="a", model=MODEL) == 24
            assert value(page, "lmdeck_gateway_errors_total", error="ModelNotFoundError") == 1
        assert value(page, "lmdeck_gateway_tokens_total", type="output") > 24
        assert value(page, "gen_ai_server_request_duration_seconds_count", model=MODEL) == 24
        assert value(page, "lmdeck_gateway_host_up", host="a") == 1
        assert running.get("/metrics", **{"X-Forwarded-For": "8.8.8.8"}).status == 403
        if PROMTOOL is not None:
            done = subprocess.run(
                [PROMTOOL, "check", "metrics"], input=answer.body, capture_output=True, check=False, timeout=PATIENCE
            )
            assert (done.returncode, done.stderr) == (0, b"")


def test_repairs_are_counted_by_dialect_and_broken_answers_by_kind(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Metrics, status and dashboard show both, and `lmdeck usage --problems` shows them with a store."""
    fake.reply('<tool_call>{"name": "works", "arguments": {"city": "Paris",}}</tool_call>')
    fake.fail("cut", reply="one two three")
    tool = {"type": "function", "function": {"name": "works", "parameters": {"type": "object", "properties": {}}}}
    store = tmp_path / "usage.db"
    with gateway(tmp_path, f'[store]\nurl = "sqlite:///{store.as_posix()}"\n{config_of([fake])}') as running:
        assert running.chat(tools=[tool]).status == 200
        assert b'"error"' in running.chat(stream=True).body
        page, status = running.get("/metrics").body.decode(), running.status()
        repaired = {"code": "repaired", "dialect": "hermes-json"}
        assert value(page, "lmdeck_gateway_problems_total", model=MODEL, **repaired) == 1
        assert value(page, "lmdeck_gateway_broken_answers_total", host="a") == 1
        assert {**repaired, "count": 1} in status["problems"]
        assert sum(status["broken"].values()) == 1
        assert "hermes-json" in running.get("/dashboard").body.decode()
    with open_store(store) as opened:
        assert ("repaired", "hermes-json", 1) in [(row.code, row.dialect, row.count) for row in opened.problems()]


def test_models_that_no_host_has_get_no_label_and_no_total(fake: FakeLMStudio, tmp_path: Path) -> None:
    """A client may invent as many as it likes; the failures name them."""
    fake.at("/v1/chat/completions").reply("Hello.")
    store = tmp_path / "usage.db"
    with gateway(tmp_path, f'[store]\nurl = "sqlite:///{store.as_posix()}"\n{config_of([fake])}') as running:
        for number in range(5):
            assert running.chat(model=f"invented-{number}").status == 404
        assert running.chat().status == 200
        page = running.get("/metrics").body.decode()
    assert "invented" not in page
    assert value(page, "lmdeck_gateway_requests_total", model="other", status="404") == 5
    assert value(page, "lmdeck_gateway_requests_total", model=MODEL) == 1
    with open_store(store) as opened:
        assert {row.group["model"]: row.requests for row in opened.usage(("model",))} == {"": 5, MODEL: 1}
        assert {failure.model for failure in opened.failures()} == {f"invented-{number}" for number in range(5)}


def begin(running: GatewayProcess) -> tuple[threading.Thread, list[Answer]]:
    """Ask for a stream in a thread."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(running.chat(stream=True)))
    thread.start()
    return thread, answers


def test_an_operator_lists_and_cancels_a_request(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Its client gets an error in its format."""
    fake.at("/v1/chat/completions").frames(chunk("one"), chunk("two"), 60.0)
    with gateway(tmp_path, config_of([fake])) as running:
        thread, answers = begin(running)
        running.wait_until(lambda status: any(live["chunks"] >= 2 for live in status["live"]))
        (live,) = running.status()["live"]
        assert (live["phase"], live["model"], live["host"]) == ("answering", MODEL, "a")
        assert live["chunks_per_second"] > 0
        path = f"/gateway/requests/{live['request_id']}/cancel"
        assert running.request("POST", path, {}).json == {"cancelled": live["request_id"]}
        thread.join(PATIENCE)
        assert answers[0].text == "onetwo"
        assert answers[0].events[-1]["error"]["code"] == "cancelled"
        running.wait_until(lambda status: not status["live"])
        assert running.request("POST", path, {}).status == 404


def test_an_operator_drains_and_restores_a_host(fake: FakeLMStudio, tmp_path: Path) -> None:
    fake.at("/v1/chat/completions").reply("Hello.")
    with FakeLMStudio(seed=0) as other, gateway(tmp_path, config_of([fake, other])) as running:
        other.at("/v1/chat/completions").reply("Hello.")
        assert running.request("POST", "/gateway/hosts/a/drain", {"drain": True}).status == 200
        assert {running.chat(str(n)).headers["x-lmdeck-host"] for n in range(6)} == {"b"}
        assert running.host("a")["draining"] is True
        assert running.request("POST", "/gateway/hosts/a/drain", {"drain": False}).json["draining"] is False
        assert running.host("a")["draining"] is False
        assert running.request("POST", "/gateway/hosts/nope/drain", {"drain": True}).status == 404
        assert running.request("POST", "/gateway/hosts/a/drain", {"drain": "yes"}).status == 400
