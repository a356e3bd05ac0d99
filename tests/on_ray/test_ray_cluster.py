"""Batches on a Ray cluster of two nodes, of which one is killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray

from conftest import Cluster
from lmdeck.contrib.ray import Ask
from lmdeck.testing import FakeLMStudio

pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]  # Ray's own warnings
ROWS = int(os.environ.get("LMDECK_RAY_ROWS", "2000"))
MODEL = "qwen2.5-7b-instruct"
PATIENCE = 300.0


def connect(cluster: Cluster) -> None:
    limit = time.monotonic() + PATIENCE
    while not ray.is_initialized():
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        except ConnectionError:
            assert time.monotonic() < limit
            time.sleep(0.5)
    cluster.add_node()
    while sum(node["Alive"] for node in ray.nodes()) < 2:
        assert time.monotonic() < limit
        time.sleep(0.2)


def answering() -> FakeLMStudio:
    fake = FakeLMStudio(cuts=False)
    fake.when(lambda _: True).respond(lambda request: f"answer to {request.last_user}")
    return fake


def kill_at(cluster: Cluster, fake: FakeLMStudio, count: int, is_over: Any) -> None:
    while len(fake.requests) < count and not is_over():
        time.sleep(0.01)
    cluster.kill_node()


def asked(fake: FakeLMStudio) -> Counter[str]:
    return Counter(request.last_user for request in fake.requests if request.wants_answer)


def test_a_node_is_killed_during_map_batches(cluster: Cluster) -> None:
    """Every row is in the output once, with its own answer."""
    connect(cluster)
    with answering() as fake:
        rows = ray.data.from_items([{"prompt": f"question {number}", "number": number} for number in range(ROWS)])
        begun = time.monotonic()
        answered = rows.map_batches(
            Ask,
            fn_constructor_kwargs={"model": MODEL, "base_url": fake.base_url, "max_concurrency": 4},
            batch_size=50,
            batch_format="pyarrow",
            concurrency=2,
            num_cpus=1,
            scheduling_strategy="SPREAD",
        )
        found: list[Any] = []
        working = threading.Thread(target=lambda: found.extend(answered.take_all()))
        working.start()
        kill_at(cluster, fake, ROWS // 4, lambda: not working.is_alive())
        working.join(PATIENCE)
        assert Counter(row["number"] for row in found) == Counter(range(ROWS))
        assert all(row["content"] == f"answer to question {row['number']}" for row in found)
        assert all(row["error"] is None for row in found)
        counts = asked(fake)
        print(f"map_batches: {ROWS} rows, {counts.total()} asked, {time.monotonic() - begun:.1f} s")


def test_a_node_is_killed_during_batch_run(cluster: Cluster, tmp_path: Path) -> None:
    """Every row is in the output once, in order; asked again is only what ran there until Ray saw that the node is gone."""
    connect(cluster)
    with answering() as fake:
        source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(ROWS)))
        command = [sys.executable, "-m", "lmdeck", "batch", "run", source, "--out", out, "--model", MODEL]
        options = ["--ray", cluster.address, "--host", fake.base_url, "--max-concurrency", "4", "--json"]
        begun = time.monotonic()
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        kill_at(cluster, fake, ROWS // 4, lambda: process.poll() is not None)
        report, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        lines = [json.loads(line) for line in out.read_bytes().split(b"\n") if line]
        contents = [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
        assert contents == [f"answer to question {number}" for number in range(ROWS)]
        assert asked(fake).total() <= ROWS + 40
        assert len(json.loads(report.splitlines()[-1])["hosts"]) == 2
        print(f"--ray: {ROWS} rows, {asked(fake).total()} asked, {time.monotonic() - begun:.1f} s")
