"""`models load|unload|get`, `ps` and `embed`, before a fake LM Studio."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cli_tools import Run

from lmdeck.testing import FakeLMStudio
from lmdeck.testing.fake_models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL
from loopback import Loopback, json_answer


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    """An LM Studio with two models, one of them loaded."""
    with FakeLMStudio() as fake:
        for key in (DEFAULT_MODEL, DEFAULT_EMBEDDING_MODEL):
            fake.remove_model(key)
        fake.add_model("big", parallel=2, size_bytes=5_000_000_000)
        fake.add_model("small", loaded=False, load_seconds=0.1)
        yield fake


def test_load_does_not_load_a_model_twice(run: Run, fake: FakeLMStudio) -> None:
    done = run("models", "load", "small", "--context-length", "2048", LMDECK_BASE_URL=fake.base_url)
    assert (done.returncode, done.stdout) == (0, "✓ small is loaded in 0.1 s\n")
    assert fake.requests[-1].body["context_length"] == 2048
    done = run("models", "load", "big", "--json", LMDECK_BASE_URL=fake.base_url)
    assert json.loads(done.stdout)["instance_id"] == "big"
    assert fake.requests[-1].path == "/api/v1/models"


def test_models_are_unloaded_by_name_or_all(run: Run, fake: FakeLMStudio) -> None:
    assert run("models", "unload", "big", LMDECK_BASE_URL=fake.base_url).stdout == "✓ big is unloaded\n"
    assert not fake.model("big").instances
    fake.add_model("big")
    assert json.loads(run("models", "unload", "--all", "--json", LMDECK_BASE_URL=fake.base_url).stdout) == ["big"]
    for wrong in ([], ["big", "--all"]):
        done = run("models", "unload", *wrong, LMDECK_BASE_URL=fake.base_url)
        assert done.returncode == 2
        assert "--all" in done.stderr


def test_a_model_is_downloaded(run: Run, fake: FakeLMStudio) -> None:
    fake.plan_download("tiny", steps=1)
    done = run("models", "get", "tiny", "--quantization", "Q4_K_M", LMDECK_BASE_URL=fake.base_url)
    assert (done.returncode, done.stdout) == (0, "✓ tiny is downloaded\n")
    asked = next(request for request in fake.requests if request.path.endswith("/download"))
    assert asked.body == {"model": "tiny", "quantization": "Q4_K_M"}


def test_ps_shows_what_is_in_memory(run: Run, fake: FakeLMStudio) -> None:
    done = run("ps", LMDECK_BASE_URL=fake.base_url)
    assert done.stdout.splitlines()[0].split() == ["instance", "model", "size", "context", "parallel"]
    assert done.stdout.splitlines()[1].split() == ["big", "big", "5.0", "GB", "4096", "2"]
    shown = json.loads(run("ps", "--json", LMDECK_BASE_URL=fake.base_url).stdout)
    assert [(row["model"], row["parallel"]) for row in shown] == [("big", 2)]


def test_texts_are_embedded(run: Run, fake: FakeLMStudio) -> None:
    fake.add_model("e", type="embeddings")
    for text in ("one", "three", "a", "bb"):
        fake.embeds(text, [float(len(text)), 0.5])
    done = run("embed", "one", "three", "--model", "e", LMDECK_BASE_URL=fake.base_url)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[3.0, 0.5], [5.0, 0.5]]
    done = run("embed", "--model", "e", "--json", stdin="a\n\nbb\n", LMDECK_BASE_URL=fake.base_url)
    assert json.loads(done.stdout) == {"model": "e", "vectors": [[1.0, 0.5], [2.0, 0.5]]}
    assert run("embed", "--model", "e", LMDECK_BASE_URL=fake.base_url).returncode == 2


def test_an_old_server_says_what_to_do(run: Run) -> None:
    with Loopback(routes={"/api/v1/models": json_answer({"models": []})}) as server:
        done = run("models", "load", "x", LMDECK_BASE_URL=server.url)
    assert done.returncode == 1
    assert "→" in done.stderr


def test_a_download_of_an_unknown_model_says_which_names_there_are(run: Run) -> None:
    """The names are those of the catalogue, not those of the server's own models."""
    with FakeLMStudio() as fake:
        done = run("models", "get", "nope", LMDECK_BASE_URL=fake.base_url)
    assert done.returncode == 1
    assert "catalogue" in done.stderr
