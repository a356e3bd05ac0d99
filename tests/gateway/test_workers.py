"""Several processes are one gateway: they share hosts, queues, status and configuration, and one may die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateways import MODEL, PATIENCE, GatewayProcess, config_of, gateway
from lmdeck.testing import FakeLMStudio

CLOSE = {"Connection": "close"}  # each request may reach another process


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False) as server:
        server.when(lambda request: "slow" in request.last_user).reply("word " * 500, tokens_per_second=5)
        yield server


def text_of(fake: FakeLMStudio, more: str = "") -> str:
    return config_of([fake], more).replace('name = "a"', 'name = "a"\nparallel = 2')


@pytest.fixture(scope="module")
def processes(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with gateway(tmp_path_factory.mktemp("gateway"), text_of(fake), "--workers", "2") as process:
        yield process
        assert process.end() == 0


@pytest.fixture
def running(processes: GatewayProcess, fake: FakeLMStudio) -> GatewayProcess:
    assert processes.request("PUT", "/gateway/config", text_of(fake).encode(), **CLOSE).status == 200
    return processes


def workers_of(running: GatewayProcess) -> list[int]:
    file = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    if not file.exists():
        pytest.skip("the system does not list the children of a process")
    return list(map(int, file.read_text().split()))


def slow_streams(running: GatewayProcess, pool: ThreadPoolExecutor, count: int) -> list[object]:
    return [pool.submit(running.chat, f"slow {n}", headers=CLOSE, stream=True) for n in range(count)]


def test_status_and_limits_are_those_of_all_processes(running: GatewayProcess) -> None:
    """A host generates no more answers than it can, and whichever process is asked knows all requests."""
    before = running.status()["totals"]
    with ThreadPoolExecutor(8) as pool:
        slow_streams(running, pool, 6)
        running.wait_until(lambda status: len([one for one in status["live"] if one["phase"] == "answering"]) == 2)
        for _ in range(8):
            status = running.request("GET", "/gateway/status", **CLOSE).json
            assert (status["requests"], len(status["live"]), status["hosts"][0]["running"]) == (6, 6, 2)
            assert [place["position"] for place in status["queues"][MODEL]["requests"]] == [0, 1, 2, 3]
        for one in status["live"]:
            path = f"/gateway/requests/{one['request_id']}/cancel"
            assert running.request("POST", path, {}, **CLOSE).json == {"cancelled": one["request_id"]}
        running.wait_until(lambda status: not status["live"])
        assert running.request("POST", path, {}).status == 404
    totals = running.status()["totals"]
    assert (totals["requests"] - before["requests"], totals["errors"] - before["errors"]) == (6, 6)


def test_one_configuration_for_all(running: GatewayProcess, fake: FakeLMStudio) -> None:
    with FakeLMStudio(strict=False) as other:
        given = config_of([fake, other], '[aliases]\nfast = "' + MODEL + '"\n').encode()
        assert running.request("PUT", "/gateway/config", given).status == 200
        answers = [running.chat(f"{n}", model="fast", headers=CLOSE) for n in range(12)]
        assert {answer.status for answer in answers} == {200}
        assert running.request("POST", "/gateway/hosts/a/drain", {"drain": True}).status == 200
        answers = [running.chat(f"{n}", model="fast", headers=CLOSE) for n in range(12)]
        assert {answer.headers["x-lmdeck-host"] for answer in answers} == {"b"}
        assert running.request("PUT", "/gateway/config", b"[queue]\nmax_wait = 0").status == 400
        running.reload(text_of(fake, '[aliases]\nquick = "' + MODEL + '"\n'))
        running.wait_until(lambda status: len(status["hosts"]) == 1)
        assert {running.chat(model="quick", headers=CLOSE).status for _ in range(6)} == {200}
        assert running.chat(model="fast", headers=CLOSE).status == 404


def test_a_conversation_stays_on_its_host_whichever_process_serves(running: GatewayProcess, fake: FakeLMStudio) -> None:
    with FakeLMStudio(strict=False) as other:
        assert running.request("PUT", "/gateway/config", config_of([fake, other]).encode()).status == 200
        answers = [running.chat(f"{n}", headers={"x-session-id": "s", **CLOSE}) for n in range(12)]
        assert len({answer.headers["x-lmdeck-host"] for answer in answers}) == 1


def test_a_dead_process_releases_its_slots(running: GatewayProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        streams = slow_streams(running, pool, 2)
        running.wait_until(lambda status: len([one for one in status["live"] if one["phase"] == "answering"]) == 2)
        before = set(workers_of(running))
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        for stream in streams:
            assert stream.exception() is not None  # type: ignore[attr-defined]  # cut
        limit = time.monotonic() + PATIENCE
        while len(set(workers_of(running)) - before) < 2:
            assert time.monotonic() < limit
            time.sleep(0.05)
        assert [running.chat(f"{n}", headers=CLOSE).status for n in range(6)] == [200] * 6
        assert running.host("a")["running"] == 0
