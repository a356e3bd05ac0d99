"""The doctor, in front of servers that are well, closed, idle, small, or cannot do what they are asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Run

from asking import lm
from lmdeck.cli.doctor.context import CheckResult
from lmdeck.cli.doctor.server_checks import run_checks
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.fake_models import DEFAULT_MODEL
from lmdeck.testing.scripted_answers import PlannedCall, refusal
from loopback import Loopback, Request, Step, completion, json_answer

CHECKS = ["settings", "server", "auth", "models", "loaded", "answer", "context", "tools", "structured"]
NOWHERE = {"LMDECK_BASE_URL": "http://127.0.0.1:1"}


def said(text: str, *, cut: bool = False) -> Answer:
    """Answer with a text."""
    return Answer(content=text, stop_reason="maxPredictedTokensReached" if cut else None)


def call(name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> Answer:
    """Answer with a native call."""
    return Answer(calls=(PlannedCall(name=name, arguments=arguments),))


def refused(message: str) -> Answer:
    """Answer with status 400."""
    return Answer(refusal=refusal(400, message))


YES, CALL, THING = said("Yes"), call(), said('{"capital": "Paris", "letters": 5}')


@contextmanager
def studio(
    *, word: Answer = YES, tool: Answer = CALL, thing: Answer = THING, api_token: str | None = None
) -> Iterator[FakeLMStudio]:
    """Run an LM Studio whose only model `m` answers the doctor's three questions well, unless it is told otherwise."""
    with FakeLMStudio(api_token=api_token) as fake:
        fake.remove_model(DEFAULT_MODEL)
        fake.add_model("m", context_length=16_384)
        fake.when(lambda request: request.tools).answer(tool)
        fake.when(lambda request: request.schema).answer(thing)
        fake.when(lambda _: True).answer(word)
        yield fake
        for request in fake.requests:
            check_question(request.body)


def check_question(asked: Mapping[str, Any]) -> None:
    """Check what the doctor asked: that a tool be called, or one token."""
    if asked.get("tools"):
        assert asked["tool_choice"] == "required"
    elif asked.get("messages") and not asked.get("response_format"):
        assert asked["max_tokens"] == 1


def examined(server: FakeLMStudio | str, **settings: Any) -> dict[str, CheckResult]:
    """Examine a server."""
    with lm(server if isinstance(server, str) else server.base_url, **settings) as client:
        results = list(run_checks(client))
    assert [result.check for result in results] == CHECKS
    for result in results:
        assert bool(result.fix) == (result.outcome in {"failed", "warning"})
        assert result.detail
    return {result.check: result for result in results}


def test_every_check_passes() -> None:
    """Each check says what it found."""
    with studio() as fake:
        found = examined(fake)
    assert {result.outcome for result in found.values()} == {"ok"}
    assert "LM Studio answers in " in found["server"].detail
    assert "/api/v1" in found["server"].detail
    assert found["auth"].detail == "no token is required"
    assert found["loaded"].detail == "m"
    assert "m answered with one token in 0." in found["answer"].detail
    assert found["context"].detail == "16384 tokens of at most 32768"
    assert found["tools"].detail == 'get_weather({"city": "Paris"}), native'


# --- the settings ---


def test_every_setting_has_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyword, environment or file; the token's value stays hidden."""
    (tmp_path / "lmdeck.toml").write_text("connect_timeout = 7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LM_API_TOKEN", "sesame")
    with studio() as fake:
        found, url = examined(fake, connect_timeout=None)["settings"], fake.base_url
    assert found.outcome == "ok"
    assert f"base_url = '{url}' from the keyword argument base_url=" in found.detail
    assert "api_token = *** from the environment variable LM_API_TOKEN" in found.detail
    assert f"connect_timeout = 7.0 from {tmp_path / 'lmdeck.toml'}" in found.detail
    assert "sesame" not in found.detail


def test_unused_settings_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is misspelt, and a file's word on the way to another's server."""
    (tmp_path / "lmdeck.toml").write_text('proxy = "http://127.0.0.1:9"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMDECK_BASEURL", "http://x")
    with studio() as fake:
        found = examined(fake)["settings"]
    assert found.outcome == "warning"
    assert "LMDECK_BASEURL is not read. Did you mean LMDECK_BASE_URL?" in found.detail
    assert "proxy is not used" in found.detail


# --- the token ---


def test_a_token_that_is_needed() -> None:
    """The check distinguishes no token, a wrong one and the right one."""
    with studio(api_token="good") as fake:
        none, wrong, right = examined(fake), examined(fake, api_token="bad"), examined(fake, api_token="good")
    assert (none["server"].outcome, none["auth"].outcome, none["models"].outcome) == ("ok", "failed", "skipped")
    assert "LM_API_TOKEN" in none["auth"].fix
    assert wrong["auth"].outcome == "failed"
    assert "new token" in wrong["auth"].fix
    assert right["auth"].detail == "a token is required, and yours is accepted"
    assert right["structured"].outcome == "ok"


def test_a_token_that_is_not_needed() -> None:
    """Is told as well; it is no fault, and never shown."""
    with studio() as fake:
        found = examined(fake, api_token="sesame")
    assert (found["auth"].outcome, found["auth"].detail) == (
        "ok",
        "a token is sent, but the server does not require one",
    )
    assert not any("sesame" in result.detail + result.fix for result in found.values())


# --- the models ---


def test_no_model_for_chats() -> None:
    """The fix says how to get one."""
    with studio() as fake:
        fake.remove_model("m")
        found = examined(fake)
    assert found["models"].outcome == "failed"
    assert "lmdeck models get" in found["models"].fix
    assert found["loaded"].outcome == "skipped"


@pytest.mark.parametrize("wanted", [None, "m"])
def test_a_model_that_the_first_request_loads(wanted: str | None) -> None:
    """Just-in-time loading is on where `/v1/models` shows what is not loaded; after the answer the context is known."""
    with studio() as fake:
        fake.add_model("m", loaded=False, context_length=4096, size_bytes=5_000_000_000)
        found = examined(fake, model=wanted)
    assert found["loaded"].outcome == "ok"
    assert found["loaded"].detail == "none; the first request loads m (5.0 GB), which takes a while"
    assert found["context"].outcome == "warning"


def test_a_model_that_nothing_loads() -> None:
    """With just-in-time loading off, an idle model is a fault, and there are two ways out."""
    with studio() as fake:
        fake.add_model("m", loaded=False)
        fake.add_model("n")
        fake.turn_off_jit()
        found = examined(fake, model="m")
    assert found["loaded"].outcome == "failed"
    assert "m is not loaded (loaded: n)" in found["loaded"].detail
    assert "lmdeck models load m" in found["loaded"].fix
    assert "Just in Time" in found["loaded"].fix
    assert found["answer"].outcome == "skipped"


@pytest.mark.parametrize(
    ("jit", "words"), [(True, "others are loaded at their first request"), (False, "others must be loaded first")]
)
def test_what_becomes_of_the_other_models(jit: bool, words: str) -> None:
    """Where one is loaded, the doctor tells what a request for another does."""
    with studio() as fake:
        fake.add_model("n", loaded=False)
        if not jit:
            fake.turn_off_jit()
        found = examined(fake)
    assert found["loaded"].outcome == "ok"
    assert words in found["loaded"].detail


def another_server() -> Loopback:
    """Run a server that is not LM Studio: it has OpenAI's list alone, and answers whatever model is named."""

    def answer(request: Request) -> list[Step]:
        asked = request.json
        check_question(asked)
        body = completion('{"capital": "Paris", "letters": 5}' if asked.get("response_format") else "Yes")
        if asked.get("tools"):
            function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
            body["choices"][0]["message"]["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
        return json_answer(body)

    listed = json_answer({"data": [{"id": "m", "owned_by": "vllm"}]})
    return Loopback(routes={"/v1/models": listed, "/v1/chat/completions": answer})


def test_a_model_that_the_list_lacks() -> None:
    """Is a concern only: a server may know names that it does not list."""
    with another_server() as server:
        found = examined(server.url, model="other")
    assert (found["models"].outcome, found["answer"].outcome) == ("warning", "ok")
    assert "'other'" in found["models"].detail


def test_a_server_with_a_minimal_model_list() -> None:
    """What another server does not tell is skipped, and nothing fails for it."""
    with another_server() as server:
        found = examined(server.url)
    assert [result.check for result in found.values() if result.outcome == "skipped"] == ["loaded", "context"]
    assert found["server"].detail.startswith("vLLM answers")
    assert found["structured"].outcome == "ok"


@pytest.mark.parametrize(
    ("loaded", "most", "outcome"), [(4096, 32_768, "warning"), (4097, 32_768, "ok"), (2048, 2048, "ok")]
)
def test_a_small_context(loaded: int, most: int, outcome: str) -> None:
    """Small is what could be larger; the fix is a command."""
    with studio() as fake:
        fake.add_model("m", context_length=loaded, max_context_length=most)
        result = examined(fake)["context"]
    assert result.outcome == outcome
    assert result.fix.endswith("`lmdeck models load m --context-length 16384`.") == (outcome == "warning")


# --- what a model can do ---


def test_a_token_without_text_is_an_answer() -> None:
    """The first token of a model that reasons may be nothing but a mark."""
    with studio(word=said("", cut=True)) as fake:
        found = examined(fake)
    assert found["answer"].outcome == "ok"
    with studio(word=said("")) as fake:
        empty = examined(fake)
    assert (empty["answer"].outcome, empty["tools"].outcome) == ("failed", "skipped")


CALL_TEXT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("tool", "outcome", "words"),
    [
        (said(CALL_TEXT), "ok", "found in the content, dialect hermes"),
        (
            said('[TOOL_REQUEST]{"name": "get_weather", "arguments": {"city": "Paris"}}[END_TOOL_REQUEST]'),
            "ok",
            "content",
        ),
        (call(arguments="{}"), "warning", "does not match"),
        (call(name="weather"), "warning", "'weather'"),
        (said("It is sunny."), "warning", "'It is sunny.'"),
        (said("Let me think", cut=True), "warning", "cut off"),
        (said(""), "warning", "empty"),
        (refused("Error rendering prompt with jinja template: no tools"), "warning", "jinja"),
        (Answer(fault="reset_at_once"), "failed", "broke"),
    ],
)
def test_tool_calls(tool: Answer, outcome: str, words: str) -> None:
    """What a model cannot do is a concern; where the call came from is told."""
    with studio(tool=tool) as fake:
        found = examined(fake)
    assert found["tools"].outcome == outcome
    assert words in found["tools"].detail
    assert found["structured"].outcome == ("skipped" if outcome == "failed" else "ok")


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (said("Paris, 5 letters."), "not JSON"),
        (said('{"capital": "Paris"}'), "letters"),
        (refused("'response_format.type' must be 'json_schema' or 'text'"), "response_format"),
    ],
)
def test_structured_output(thing: Answer, words: str) -> None:
    """A server that does not hold the model to a schema is a concern: lmdeck checks and asks again."""
    with studio(thing=thing) as fake:
        result = examined(fake)["structured"]
    assert result.outcome == "warning"
    assert words in result.detail


# --- the command ---


def test_the_command_shows_one_line_a_check(run: Run) -> None:
    """A concern has its fix below it, and is no failure: the exit code is 0."""
    with studio() as fake:
        fake.add_model("m", context_length=4096)
        done = run("doctor", LMDECK_BASE_URL=fake.base_url)
    assert done.returncode == 0
    assert [line[0] for line in done.stdout.splitlines()] == [*"✓✓✓✓✓✓!", " ", *"✓✓"]
    assert "  → Reload it with a larger context" in done.stdout


def test_the_doctor_prints_json(run: Run) -> None:
    """The first check that fails has a fix, those that build on it are skipped, and the exit code is 1."""
    done = run("doctor", "--json", **NOWHERE)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["ok"] is False
    assert [check["check"] for check in report["checks"]] == CHECKS
    assert [check["outcome"] for check in report["checks"]] == ["ok", "failed", *["skipped"] * 7]
    assert set(report["checks"][0]) == {"check", "outcome", "detail", "fix"}
    assert "lms server start" in report["checks"][1]["fix"]
    assert "→ " in run("doctor", **NOWHERE).stdout


def test_the_embedded_engine_passes_every_check(run: Run) -> None:
    """A model that only says "Hello there" can be talked to, and the doctor says what it cannot do."""
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    outcomes = {check["check"]: check["outcome"] for check in report["checks"]}
    assert (done.returncode, report["ok"]) == (0, True)
    assert [name for name, outcome in outcomes.items() if outcome != "ok"] == ["tools", "structured"]
