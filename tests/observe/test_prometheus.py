"""Metrics for Prometheus: what is counted, and that a real Prometheus reads it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families as parse

from asking import alm, lm
from bodies import chunk
from lmdeck import LMStudioError, observe
from lmdeck.gateway.metrics import GatewayMetrics
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from ports import free_port

ROOT = Path(__file__).parents[2]
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
NEEDED = "prometheus is not installed: `make system-packages`"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def busy(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    """Ask in every way that has an outcome of its own."""

    def works(city: str) -> str:
        """Work."""
        return city

    fake.reply("whole").reply("a stream of words").tool_call("works", city="Paris").reply("done")
    fake.error(400, "no").fail("cut", reply="one two three").frames(chunk("one"), 30.0)
    with lm(fake.base_url, cache="memory:") as client, observe.prometheus(client, registry):
        chat = client.chat().user("Hi")
        for _ in range(2):
            chat.with_options(temperature=0).send()
        chat.stream().until_done()
        chat.with_tools([works]).run()
        for ask in (chat.send, lambda: chat.stream().until_done()):
            with pytest.raises(LMStudioError):
                ask()
        with chat.stream() as stream:
            next(stream)


def test_everything_is_counted(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    busy(fake, registry)
    value = registry.get_sample_value
    chat = {"operation": "chat", "model": "m"}
    assert value("lmdeck_requests_total", {**chat, "outcome": "ok"}) == 5
    assert value("lmdeck_requests_total", {**chat, "outcome": "InvalidRequestError"}) == 1
    assert value("lmdeck_requests_total", {**chat, "outcome": "abandoned"}) == 1
    assert value("lmdeck_request_duration_seconds_count", chat) == 8
    assert value("lmdeck_requests_in_progress") == 0
    assert value("lmdeck_time_to_first_token_seconds_count", {"model": "m"}) == 1
    assert value("lmdeck_tokens_total", {"model": "m", "type": "output"}) or 0 > 0
    assert value("lmdeck_cache_total", {"result": "hit"}) == 1
    assert value("lmdeck_tool_calls_total", {"tool": "works", "outcome": "ok"}) == 1
    broken = [
        value("lmdeck_broken_streams_total", {"kind": kind})
        for kind in ("IncompleteStreamError", "ConnectionLostError")
    ]
    assert sum(filter(None, broken)) == 1


async def test_running_requests_and_two_clients_in_one_registry(
    fake: FakeLMStudio, registry: CollectorRegistry
) -> None:
    """A gauge of what is going on; a second client adds to the same metrics."""
    fake.frames(chunk("one"), 30.0).reply("two")
    async with alm(fake.base_url) as client:
        with observe.prometheus(client, registry):
            async with client.chat().user("Hi").stream() as stream:
                await anext(stream)
                assert registry.get_sample_value("lmdeck_requests_in_progress") == 1
            assert registry.get_sample_value("lmdeck_requests_in_progress") == 0
    with lm(fake.base_url) as other, observe.prometheus(other, registry):
        other.chat().user("Hi").send()
    outcomes = {
        s.labels["outcome"]: s.value for m in registry.collect() for s in m.samples if s.name == "lmdeck_requests_total"
    }
    assert outcomes == {"abandoned": 1, "ok": 1}


def test_repaired_calls_are_counted_by_dialect(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    """A call in the text by the dialect that it is written in, a native one as native."""

    def works(city: str) -> str:
        """Work."""
        return city

    fake.reply('<tool_call>{"name": "works", "arguments": {"city": "Paris",}}</tool_call>')
    fake.reply("<tool_call><function=works><parameter=city>Paris</tool_call>")
    native = {"index": 0, "id": "1", "function": {"name": "works", "arguments": '{"city": "Paris",}'}}
    first = chunk(choices=[{"index": 0, "delta": {"tool_calls": [native]}, "finish_reason": None}])
    fake.frames(first, chunk(finish="tool_calls"))
    with lm(fake.base_url) as client, observe.prometheus(client, registry):
        for _ in range(3):
            assert client.chat().user("Hi").with_tools([works]).stream().until_done().tool_calls
    counted = {
        dialect: registry.get_sample_value("lmdeck_problems_total", {"code": "repaired", "dialect": dialect})
        for dialect in ("hermes-json", "qwen3-coder-xml", "native")
    }
    assert counted == {"hermes-json": 1, "qwen3-coder-xml": 1, "native": 1}


def test_labels_stay_few(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    fake.when(lambda _: True).error(404, "no")
    with lm(fake.base_url) as client, observe.prometheus(client, registry):
        for number in range(230):
            with pytest.raises(LMStudioError):
                client.chat(f"model-{number}").user("Hi").send()
    models = {s.labels["model"] for m in registry.collect() for s in m.samples if s.name == "lmdeck_requests_total"}
    assert len(models) == 201
    assert "other" in models


@pytest.mark.skipif(PROMTOOL is None, reason=NEEDED)
def test_promtool_accepts_the_metrics(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    busy(fake, registry)
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=generate_latest(registry),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def ask_prometheus(port: int, query: str) -> list[Any]:
    url = f"http://127.0.0.1:{port}/api/v1/query?query={query}"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
        return found


@pytest.mark.skipif(PROMETHEUS is None, reason=NEEDED)
def test_a_real_prometheus_scrapes_it(fake: FakeLMStudio, registry: CollectorRegistry, tmp_path: Path) -> None:
    busy(fake, registry)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    port = free_port()
    job = {"job_name": "lmdeck", "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    command = [
        str(PROMETHEUS), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 2 * PATIENCE
            found: list[Any] = []
            while not found:
                assert time.monotonic() < deadline, "Prometheus has not scraped"
                assert process.poll() is None, "Prometheus has ended"
                try:
                    found = ask_prometheus(port, 'lmdeck_requests_total{outcome="ok"}')
                except OSError:
                    time.sleep(0.1)
            assert found[0]["value"][1] == "5"
        finally:
            process.terminate()
            server.shutdown()
            server.server_close()
            thread.join()


def test_the_dashboard_asks_for_metrics_that_are_there(fake: FakeLMStudio, registry: CollectorRegistry) -> None:
    """The file for Grafana is current, and each of its queries names a metric of the client or the gateway."""
    spec = importlib.util.spec_from_file_location("_grafana", ROOT / "scripts" / "grafana_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = json.loads((ROOT / "examples" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    assert written == script.dashboard()
    with lm(fake.base_url) as client:
        observe.prometheus(client, registry).close()
    page = bytes(GatewayMetrics().page({"requests": 0, "hosts": [], "queues": {}}).body).decode()
    known = {metric.name for text in (page, generate_latest(registry).decode()) for metric in parse(text)}
    queries = [target["expr"] for panel in written["panels"] for target in panel["targets"]]
    asked = {re.sub("(_total|_bucket)$", "", name) for query in queries for name in re.findall("lmdeck_[a-z_]+", query)}
    assert asked <= known
