"""`models load|unload|get`, `ps` and `embed`, against LM Studio's answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cli_tools import Run

from loopback import Loopback, Request, json_answer

LISTED = {
    "models": [
        {"key": "big", "type": "llm", "display_name": "Big", "size_bytes": 5_000_000_000,
         "loaded_instances": [{"id": "big", "config": {"context_length": 4096, "parallel": 2}}]},
        {"key": "small", "type": "llm", "display_name": "Small", "size_bytes": 1_000_000, "loaded_instances": []},
    ]
}  # fmt: skip
JOB = {"job_id": "j1", "total_size_bytes": 1000}


@pytest.fixture
def studio() -> Iterator[Loopback]:
    polls = iter(
        [
            {**JOB, "status": "downloading", "downloaded_bytes": 500},
            {**JOB, "status": "completed", "downloaded_bytes": 1000},
        ]
    )

    def embedded(request: Request) -> Any:
        rows = [{"index": at, "embedding": [float(len(text)), 0.5]} for at, text in enumerate(request.json["input"])]
        return json_answer({"data": rows, "model": "e", "usage": {"prompt_tokens": 2, "total_tokens": 2}})

    routes: dict[str, Any] = {
        "/api/v1/models": json_answer(LISTED),
        "/api/v1/models/load": lambda request: json_answer(
            {"type": "llm", "instance_id": request.json["model"], "load_time_seconds": 1.5, "status": "loaded"}
        ),
        "/api/v1/models/unload": lambda request: json_answer({"instance_id": request.json["instance_id"]}),
        "/api/v1/models/download": json_answer({**JOB, "status": "downloading"}),
        "/api/v1/models/download/status/j1": lambda _: json_answer(next(polls)),
        "/v1/embeddings": embedded,
    }
    with Loopback(routes=routes) as server:
        yield server


def test_a_model_is_loaded_and_one_that_is_there_is_not_doubled(run: Run, studio: Loopback) -> None:
    done = run("models", "load", "small", "--context-length", "2048", LMDECK_BASE_URL=studio.url)
    assert (done.returncode, done.stdout) == (0, "✓ small is loaded in 1.5 s\n")
    assert studio.requests[-1].json["context_length"] == 2048
    done = run("models", "load", "big", "--json", LMDECK_BASE_URL=studio.url)
    assert json.loads(done.stdout)["instance_id"] == "big"
    assert studio.requests[-1].path == "/api/v1/models"


def test_models_are_unloaded_by_name_or_all(run: Run, studio: Loopback) -> None:
    assert run("models", "unload", "big", LMDECK_BASE_URL=studio.url).stdout == "✓ big is unloaded\n"
    assert json.loads(run("models", "unload", "--all", "--json", LMDECK_BASE_URL=studio.url).stdout) == ["big"]
    for wrong in ([], ["big", "--all"]):
        done = run("models", "unload", *wrong, LMDECK_BASE_URL=studio.url)
        assert done.returncode == 2
        assert "--all" in done.stderr


def test_a_model_is_downloaded(run: Run, studio: Loopback) -> None:
    done = run("models", "get", "small", "--quantization", "Q4_K_M", LMDECK_BASE_URL=studio.url)
    assert (done.returncode, done.stdout) == (0, "✓ small is downloaded\n")
    asked = next(request for request in studio.requests if request.path.endswith("/download"))
    assert asked.json == {"model": "small", "quantization": "Q4_K_M"}


def test_ps_shows_what_is_in_memory(run: Run, studio: Loopback) -> None:
    done = run("ps", LMDECK_BASE_URL=studio.url)
    assert done.stdout.splitlines()[0].split() == ["instance", "model", "size", "context", "parallel"]
    assert done.stdout.splitlines()[1].split() == ["big", "big", "5.0", "GB", "4096", "2"]
    shown = json.loads(run("ps", "--json", LMDECK_BASE_URL=studio.url).stdout)
    assert [(row["model"], row["parallel"]) for row in shown] == [("big", 2)]


def test_texts_are_embedded(run: Run, studio: Loopback) -> None:
    done = run("embed", "one", "three", "--model", "e", LMDECK_BASE_URL=studio.url)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[3.0, 0.5], [5.0, 0.5]]
    done = run("embed", "--model", "e", "--json", stdin="a\n\nbb\n", LMDECK_BASE_URL=studio.url)
    assert json.loads(done.stdout) == {"model": "e", "vectors": [[1.0, 0.5], [2.0, 0.5]]}
    assert run("embed", "--model", "e", LMDECK_BASE_URL=studio.url).returncode == 2


def test_an_old_server_says_what_to_do(run: Run) -> None:
    with Loopback(routes={"/api/v1/models": json_answer({"models": []})}) as server:
        done = run("models", "load", "x", LMDECK_BASE_URL=server.url)
    assert done.returncode == 1
    assert "→" in done.stderr
