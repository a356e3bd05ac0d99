"""Models are loaded as their profiles say before the first request, once; models that unload each other are reported."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lmdeck import ConfigurationError, LMStudio, LMStudioError, ModelEvicted, ModelLoadError, ModelLoadProgress
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE, Loopback, Request, Step, json_answer

BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
PROFILES = {"big": {"context_length": 16384, "flash_attention": True}}
LOAD = "/api/v1/models/load"


@pytest.fixture(name="fake")
def _fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False) as fake:
        fake.add_model("big", loaded=False, load_seconds=0.1)
        fake.add_model("embedder", type="embeddings", loaded=False)
        fake.add_model("decider", type="decision", loaded=False)
        yield fake


def all_at_once(fake: FakeLMStudio, asks: list[Callable[[Any], Any]], *, is_async: bool, **settings: Any) -> list[Any]:
    """Do everything at once with one client; give the results, or the errors."""
    if is_async:

        async def main() -> list[Any]:
            async with fake.async_client(**settings) as client:
                return await asyncio.gather(*(ask(client) for ask in asks), return_exceptions=True)

        return asyncio.run(main())
    results: list[Any] = []
    with fake.client(**settings) as client:

        def work(ask: Callable[[Any], Any]) -> None:
            start.wait(PATIENCE)
            try:
                results.append(ask(client))
            except LMStudioError as error:
                results.append(error)

        start = threading.Barrier(len(asks))
        threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    return results


def chat(client: Any) -> Any:
    return client.chat("big").user("Hi").send()


@BOTH
def test_a_model_is_loaded_as_its_profile_says_before_the_first_request(fake: FakeLMStudio, is_async: bool) -> None:
    """It is loaded once, however many requests are made at the same time, and before any of them is sent."""
    results = all_at_once(fake, [chat] * 8, is_async=is_async, profiles=PROFILES)
    assert all(not isinstance(result, Exception) for result in results), results
    model = fake.model("big")
    assert model.loads == 1
    assert [one.context_length for one in model.instances] == [16384]
    posts = [request.path for request in fake.requests if request.method == "POST"]
    assert posts == [LOAD, *["/v1/chat/completions"] * 8]
    assert fake.requests[1].body == {"model": "big", "echo_load_config": True, **PROFILES["big"]}


@BOTH
@pytest.mark.parametrize("profiles", [{}, PROFILES], ids=["no profile", "profile"])
def test_whoever_loads_a_model_loads_it_once(fake: FakeLMStudio, profiles: Any, is_async: bool) -> None:
    """`load`, `ensure_loaded` and requests at the same time load a model once."""
    asks = [
        lambda client: client.models.ensure_loaded("big"),
        lambda client: client.models.load("big"),
        chat,
    ] * 4
    results = all_at_once(fake, asks, is_async=is_async, profiles=profiles)
    assert all(not isinstance(result, Exception) for result in results), results
    assert fake.model("big").loads == 1


ENSURE = """
import sys, lmdeck
print("ready", flush=True)
print(lmdeck.LMStudio(base_url=sys.argv[1]).models.ensure_loaded("big").instance_id, flush=True)
"""


def test_processes_load_a_model_in_turn() -> None:
    """The second one waits, and finds the model loaded; a killed one is not waited for."""
    at_load, go_on, is_loaded = threading.Semaphore(0), threading.Event(), threading.Event()
    loads: list[Request] = []

    def answer(request: Request) -> Iterator[Step]:
        if request.path != LOAD:
            instances = [{"id": "big", "config": {}}] if is_loaded.is_set() else []
            yield from json_answer({"models": [{"key": "big", "type": "llm", "loaded_instances": instances}]})
            return
        loads.append(request)
        at_load.release()
        go_on.wait(PATIENCE)
        yield 0.4  # in which the other would come
        is_loaded.set()
        yield from json_answer({"instance_id": "big", "type": "llm", "status": "loaded", "load_time_seconds": 1})

    with Loopback(answer) as server, ExitStack() as stack:
        start = partial(subprocess.Popen, [sys.executable, "-c", ENSURE, server.url], stdout=subprocess.PIPE, text=True)
        killed = stack.enter_context(start())
        assert at_load.acquire(timeout=PATIENCE)
        killed.kill()
        killed.wait(PATIENCE)
        others = [stack.enter_context(start()) for _ in range(2)]
        assert at_load.acquire(timeout=PATIENCE)
        assert [other.stdout.readline() for other in others if other.stdout] == ["ready\n"] * 2
        go_on.set()
        assert [other.communicate(timeout=PATIENCE)[0] for other in others] == ["big\n"] * 2
    assert len(loads) == 2  # of the killed one, and of one of the others


@pytest.mark.parametrize(
    ("model", "ask"),
    [
        ("big", lambda lm: lm.complete("Hi", model="big")),
        ("big", lambda lm: lm.conversation("big").send("Hi")),
        ("big", lambda lm: lm.responses.create(model="big", input="Hi")),
        ("big", lambda lm: lm.messages.create(model="big", messages=[{"role": "user", "content": "Hi"}])),
        ("embedder", lambda lm: lm.embed("Hi", model="embedder")),
        ("decider", lambda lm: lm.decide("Hi", {"nice": (bool, "Is it nice?")}, model="decider")),
    ],
    ids=["complete", "conversation", "responses", "messages", "embed", "decide"],
)
def test_every_kind_of_request_loads_its_model(fake: FakeLMStudio, model: str, ask: Callable[[LMStudio], Any]) -> None:
    """The load has the options of the profile, and the reply reports it."""
    heard: list[ModelLoadProgress] = []
    with fake.client(profiles={model: {"context_length": 2048}}) as lm:
        lm.on(ModelLoadProgress, heard.append)
        ask(lm)
    assert [one.context_length for one in fake.model(model).instances] == [2048]
    assert [event.progress for event in heard[:1]] == [0.0]


def test_loading_by_hand_completes_the_profile(fake: FakeLMStudio) -> None:
    """Options of the call win over those of the profile."""
    with fake.client(profiles=PROFILES) as lm:
        lm.models.load("big", context_length=8192)
    assert fake.requests[-1].body == {
        "model": "big", "echo_load_config": True, "context_length": 8192, "flash_attention": True,
    }  # fmt: skip


def test_a_model_that_is_loaded_otherwise_is_left_alone(fake: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    """Another program may use it; the log tells, once."""
    fake.add_model("busy", context_length=4096)
    with fake.client(profiles={"busy": {"context_length": 16384}}) as lm, caplog.at_level(logging.WARNING, "lmdeck"):
        lm.chat("busy").user("Hi").send()
        lm.chat("busy").user("Hi").send()
    assert LOAD not in [request.path for request in fake.requests]
    assert [record.message for record in caplog.records if "other options" in record.message] != []
    assert len(caplog.records) == 1


def test_a_server_that_loads_nothing_is_asked_all_the_same(
    fake: FakeLMStudio, caplog: pytest.LogCaptureFixture
) -> None:
    """Another product, or an LM Studio before 0.4, gets the request without a load."""
    fake.at(LOAD).error(404, "Not Found")
    with fake.client(profiles=PROFILES) as lm, caplog.at_level(logging.WARNING, "lmdeck"):
        assert lm.chat("big").user("Hi").send().content
    assert "profile of big is not applied" in caplog.text


@BOTH
def test_a_model_that_cannot_be_loaded_fails_its_request(fake: FakeLMStudio, is_async: bool) -> None:
    """Each further request fails, too, and tries the load again."""
    fake.add_model("huge", loaded=False, refuses_to_load="too little memory")
    ask = [lambda client: client.chat("huge").user("Hi").send()] * 3
    results = all_at_once(fake, ask, is_async=is_async, profiles={"huge": {"context_length": 4096}}, retry_attempts=1)
    assert [type(result) for result in results] == [ModelLoadError] * 3


def test_profiles_come_from_files_and_the_environment(
    fake: FakeLMStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Profiles have the same sources as any other setting."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lmdeck.toml").write_text('[profiles."qwen/qwen3-4b"]\ncontext_length = 16384\n')
    with LMStudio(base_url=fake.base_url) as lm:
        assert lm.settings.profiles == {"qwen/qwen3-4b": {"context_length": 16384}}
    monkeypatch.setenv("LMDECK_PROFILES", '{"m": {"context_length": 1}}')
    with LMStudio(base_url=fake.base_url) as lm:
        assert lm.settings.profiles == {"m": {"context_length": 1}}
        assert "LMDECK_PROFILES" in lm.settings.origins["profiles"]
    monkeypatch.setenv("LMDECK_PROFILES", "{m")
    with pytest.raises(ConfigurationError, match="as JSON"):
        LMStudio()
    for wrong in (5, {"m": 5}, {"m": {"context_length": "long"}}):
        with pytest.raises(ConfigurationError, match="profiles"):
            LMStudio(profiles=wrong)  # type: ignore[arg-type]


@BOTH
def test_models_that_unload_each_other_are_reported(
    fake: FakeLMStudio, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """The warning says what to do; the list is read when the client returns to a model, not each time."""
    fake.turn_on_auto_evict()
    fake.add_model("other", loaded=False)
    heard: list[ModelEvicted] = []

    async def main() -> None:
        async with fake.async_client() as client:
            client.on(ModelEvicted, heard.append)
            for model in ("big", "other") * 3:
                await client.chat(model).user("Hi").send()

    with caplog.at_level(logging.WARNING, "lmdeck"):
        if is_async:
            asyncio.run(main())
        else:
            with fake.client() as client:
                client.on(ModelEvicted, heard.append)
                for model in ("big", "other") * 3:
                    client.chat(model).user("Hi").send()
    assert [(event.model, list(event.loaded), event.ttl) for event in heard] == [("big", ["other"], None)]
    assert "auto-evict" in caplog.text
    assert "lm.models.load" in caplog.text
    assert [request.path for request in fake.requests].count("/api/v1/models") == 1


def test_an_expired_ttl_is_named(fake: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    """It is the request's own."""
    heard: list[ModelEvicted] = []
    with fake.client() as client, caplog.at_level(logging.WARNING, "lmdeck"):
        client.on(ModelEvicted, heard.append)
        client.chat("big").user("Hi").with_options(ttl=0).send()
        fake.evict("big")
        client.embed("Hi", model="embedder")
        client.chat("big").user("Hi").send()
    assert [event.ttl for event in heard] == [0.0]
    assert "`ttl` of 0 s had passed" in caplog.text


def test_models_that_stay_are_not_reported(fake: FakeLMStudio, caplog: pytest.LogCaptureFixture) -> None:
    """Models of a server without a list are not reported either."""
    with fake.client() as client, caplog.at_level(logging.WARNING, "lmdeck"):
        for _ in range(3):
            client.chat("big").user("Hi").send()
            client.embed("Hi", model="embedder")
    assert caplog.records == []
