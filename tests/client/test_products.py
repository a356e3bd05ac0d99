"""Which product answers, and how many questions it takes to know; most are no LM Studio, so none of them is a fake of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asking import alm, lm
from lmdeck import AuthenticationError, Health
from loopback import HANG, RESET, Answer, Loopback, json_answer, text_answer

V1, V0, OPENAI = "/api/v1/models", "/api/v0/models", "/v1/models"
LISTS = [V1, V0, OPENAI]
STATUS = "/lms-status"
UNEXPECTED = json_answer({"error": "Unexpected endpoint or method. (GET /api/v1/models)"})
LLAMA = {"server": "llama.cpp"}


def ids(owner: object = None, **headers: object) -> Answer:
    """Return a list in OpenAI's form with one model of an owner."""
    return json_answer({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}, **headers)


CASES: dict[str, tuple[dict[str, Answer], list[str], tuple[str, str | None, str]]] = {
    "LM Studio": ({V1: json_answer({"models": []})}, [V1, STATUS], ("LM Studio", None, "v1")),
    "LM Studio with its version": (
        {V1: json_answer({"models": []}), STATUS: json_answer({"package": "lmstudio", "version": "0.4.20"})},
        [V1, STATUS],
        ("LM Studio", "0.4.20", "v1"),
    ),
    "llmster": (
        {V1: json_answer({"models": []}), STATUS: json_answer({"package": "@lmstudio/llmster", "version": "0.0.3"})},
        [V1, STATUS],
        ("llmster", "0.0.3", "v1"),
    ),
    "Bionic": (
        {V1: json_answer({"models": []}), STATUS: json_answer({"package": "bionic", "version": "1.2.3"})},
        [V1, STATUS],
        ("Bionic", "1.2.3", "v1"),
    ),
    "LM Studio with an odd status": (
        {V1: json_answer({"models": []}), STATUS: json_answer({"package": "lmstudio", "version": "\x1b[2J"})},
        [V1, STATUS],
        ("LM Studio", None, "v1"),
    ),
    "LM Studio, older": ({V1: UNEXPECTED, V0: json_answer({"data": []})}, [V1, V0, STATUS], ("LM Studio", None, "v0")),
    "LM Studio, very old": (
        {V1: UNEXPECTED, V0: UNEXPECTED, OPENAI: json_answer({"data": []})},
        [*LISTS, STATUS],
        ("LM Studio", None, "openai"),
    ),
    "LM Studio behind a proxy of /v1": (
        {OPENAI: ids("organization_owner")},
        [*LISTS, STATUS],
        ("LM Studio", None, "openai"),
    ),
    "LM Studio behind a proxy, no owner": (
        {OPENAI: ids(), "/lmstudio-greeting": json_answer({"lmstudio": True})},
        [*LISTS, "/api/version", "/lmstudio-greeting", STATUS],
        ("LM Studio", None, "openai"),
    ),
    "lmdeck": ({V1: json_answer({"models": []}, server="lmdeck/1.2.3")}, [V1], ("lmdeck engine", "1.2.3", "v1")),
    "llama.cpp": (
        {OPENAI: ids(server="llama.cpp"), "/props": json_answer({"build_info": "b8681-abc", "total_slots": 4})},
        [*LISTS, "/props"],
        ("llama.cpp", "b8681-abc", "openai"),
    ),
    "llama.cpp behind a proxy, /props closed": (
        {OPENAI: ids("llamacpp", server="nginx/1.25"), "/props": json_answer({"error": {"code": 501}}, 501)},
        [*LISTS, "/props"],
        ("llama.cpp", None, "openai"),
    ),
    "Ollama": (
        {OPENAI: ids("library"), "/api/version": json_answer({"version": "0.12.3"})},
        [*LISTS, "/api/version"],
        ("Ollama", "0.12.3", "openai"),
    ),
    "Ollama with models of others": (
        {OPENAI: ids("hf.co"), "/api/version": json_answer({"version": "0.12.3"})},
        [*LISTS, "/api/version"],
        ("Ollama", "0.12.3", "openai"),
    ),
    "vLLM": (
        {OPENAI: ids("vllm", server="uvicorn"), "/version": json_answer({"version": "0.11.0"})},
        [*LISTS, "/version"],
        ("vLLM", "0.11.0", "openai"),
    ),
    "LiteLLM": ({OPENAI: ids("openai", x_litellm_version="1.80.0")}, LISTS, ("LiteLLM", "1.80.0", "openai")),
    "LiteLLM, no version with the list": (
        {
            OPENAI: ids("openai"),
            "/health/liveliness": json_answer("I'm alive!"),
            "/health/readiness": json_answer({"status": "connected", "litellm_version": "1.80.0"}),
        },
        [*LISTS, "/api/version", "/lmstudio-greeting", "/health/liveliness", "/health/readiness"],
        ("LiteLLM", "1.80.0", "openai"),
    ),
    "LiteLLM, no version at all": (
        {OPENAI: ids("openai"), "/health/liveliness": json_answer("I'm alive!")},
        [*LISTS, "/api/version", "/lmstudio-greeting", "/health/liveliness", "/health/readiness"],
        ("LiteLLM", None, "openai"),
    ),
    "something else": (
        {OPENAI: ids(["odd"])},
        [*LISTS, "/api/version", "/lmstudio-greeting", "/health/liveliness"],
        ("an OpenAI-compatible server", None, "openai"),
    ),
    "something that answers everything": (
        {OPENAI: ids(), "/api/version": json_answer("hello"), "/lmstudio-greeting": json_answer({"lmstudio": "yes"})},
        [*LISTS, "/api/version", "/lmstudio-greeting", "/health/liveliness"],
        ("an OpenAI-compatible server", None, "openai"),
    ),
}


def health(url: str, *, is_async: bool = False, **settings: Any) -> Health:
    async def ask() -> Health:
        async with alm(url, **settings) as client:
            return await client.health()

    if is_async:
        return asyncio.run(ask())
    with lm(url, **settings) as client:
        return client.health()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("case", CASES)
def test_a_product_is_known_by_what_it_says(case: str, is_async: bool) -> None:
    """The engine costs no question more than the list of models; LM Studio and others one or two."""
    routes, asked, expected = CASES[case]
    with Loopback(routes=routes) as server:
        found = health(server.url, is_async=is_async)
        assert [request.path for request in server.requests] == asked
    assert (found.product, found.version, found.api) == expected
    assert (found.reachable, found.error) == (True, None)


@pytest.mark.parametrize(
    "answer",
    [
        [RESET],
        json_answer({"build_info": ["b1"]}),
        json_answer({"build_info": "x" * 100_000}),
        json_answer({"build_info": "a\x1b[2Jb"}),
        json_answer([]),
        text_answer("<html></html>", content_type="text/html"),
        text_answer("no", status=503),
        text_answer(
            b'{"build_info": "b1", "chat_template": "' + b"x" * (2 << 20) + b'"}', content_type="application/json"
        ),
    ],
)
def test_a_question_that_fails_leaves_the_version_open(answer: Answer) -> None:
    """It is asked once, and whatever comes of it, the server is well."""
    with Loopback(routes={OPENAI: ids(server="llama.cpp"), "/props": answer}) as server:
        found = health(server.url, retry_attempts=3)
        assert [request.path for request in server.requests].count("/props") == 1
    assert (found.product, found.version, found.error) == ("llama.cpp", None, None)


def test_a_question_is_not_waited_for_long() -> None:
    """A server that never answers it holds `health` up for the time limit, two seconds at most."""
    with Loopback(routes={OPENAI: ids("library"), "/api/version": [HANG]}) as server:
        found = health(server.url, timeout=2.0)
    assert (found.product, found.version) == ("Ollama", None)
    assert found.latency is not None
    assert found.latency < 2.0  # of the list alone: the other question took so long


def test_a_server_that_asks_for_a_token_may_name_itself() -> None:
    """LM Studio's refusal says whose token is missing."""
    words = "An LM Studio API token is needed, but none came."
    body = {"error": {"type": "invalid_request", "code": "invalid_api_key", "message": words}}
    with Loopback(json_answer(body, 401)) as server:
        found = health(server.url)
    assert isinstance(found.error, AuthenticationError)
    assert (found.reachable, found.product) == (True, "LM Studio")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_version_may_be_on_another_port_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """The API for LM Studio's SDKs is asked once, without token, if LM Studio's own file names the server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    internal = tmp_path / ".lmstudio" / ".internal"
    internal.mkdir(parents=True)
    settings = {"api_token": "sk-own", "headers": {"X-Own": "1"}}
    status = json_answer({"package": "llmster", "version": "0.0.3"})
    with Loopback(routes={V1: json_answer({"models": []})}) as server, Loopback(routes={STATUS: status}) as api:
        (internal / "http-server.json").write_text(json.dumps({"port": port_of(api), "pid": 1}))
        assert health(server.url, is_async=is_async).version is None  # no file says that this is LM Studio's server
        (internal / "http-server-config.json").write_text(json.dumps({"port": port_of(server)}))
        found = health(f"http://localhost:{port_of(server)}", is_async=is_async, **settings)
        assert (found.product, found.version) == ("llmster", "0.0.3")
        (asked,) = api.requests
        assert "authorization" not in asked.headers
        assert "x-own" not in asked.headers
        monkeypatch.setenv("LMS_API_SERVER_INFO_PATH", str(tmp_path / "none"))
        assert health(server.url, is_async=is_async).version is None


def test_the_program_is_asked_for_once() -> None:
    """Each client asks once which program answers."""
    status = json_answer({"package": "lmstudio", "version": "0.4.20"})
    with Loopback(routes={V1: json_answer({"models": []}), STATUS: status}) as server, lm(server.url) as client:
        assert [client.health().version for _ in range(3)] == ["0.4.20"] * 3
        assert [request.path for request in server.requests].count(STATUS) == 1


def port_of(server: Loopback) -> int:
    return int(server.url.rpartition(":")[2])
