"""The doctor, in front of servers that are well, closed, idle, small, or cannot do what they are asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cli_tools import Run

from asking import lm
from lmdeck.cli.checks import examine
from lmdeck.cli.patient import Finding
from loopback import RESET, Answer, Loopback, Request, Step, completion, json_answer

V1, V0, OPENAI, CHAT = "/api/v1/models", "/api/v0/models", "/v1/models", "/v1/chat/completions"
CHECKS = ["settings", "server", "auth", "models", "loaded", "answer", "context", "tools", "structured"]
NOWHERE = {"LMDECK_BASE_URL": "http://127.0.0.1:1"}


def call(name: str = "get_weather", arguments: str = '{"city": "Paris"}') -> list[Step]:
    """Answer with a native call."""
    function = {"name": name, "arguments": arguments}
    body = completion("", finish="tool_calls")
    body["choices"][0]["message"]["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
    return json_answer(body)


def said(text: str, **more: Any) -> list[Step]:
    """Answer with a text."""
    return json_answer(completion(text, **more))


def chat(
    *, word: Answer | None = None, tool: Answer | None = None, thing: Answer | None = None
) -> Callable[[Request], Any]:
    """Answer the doctor's three questions, as a good model does unless it is told otherwise."""

    def answer(request: Request) -> Any:
        asked = request.json
        if asked.get("tools"):
            assert asked["tool_choice"] == "required"
            return call() if tool is None else tool
        if asked.get("response_format"):
            return said('{"capital": "Paris", "letters": 5}') if thing is None else thing
        assert asked["max_tokens"] == 1
        given = said("Yes") if word is None else word
        return given(request) if callable(given) else given

    return answer


def model(key: str, loaded: int = 0, most: int = 32_768) -> dict[str, Any]:
    """Give an entry of the list, loaded with so much context."""
    instances = [{"id": key, "config": {"context_length": loaded}}] if loaded else []
    return {
        "key": key,
        "type": "llm",
        "size_bytes": 5_000_000_000,
        "max_context_length": most,
        "loaded_instances": instances,
    }


def lists(*models: dict[str, Any], visible: tuple[str, ...] = ()) -> dict[str, Answer]:
    """Give LM Studio's two lists: what is on the disk, and what `/v1/models` shows."""
    return {
        V1: json_answer({"models": list(models)}),
        OPENAI: json_answer({"data": [{"id": key, "owned_by": "organization_owner"} for key in visible]}),
    }


WELL: dict[str, Answer] = {**lists(model("m", 16_384)), CHAT: chat()}


def examined(routes: dict[str, Answer], **settings: Any) -> dict[str, Finding]:
    """Examine a server that answers so."""
    with Loopback(routes=routes) as server, lm(server.url, **settings) as client:
        findings = list(examine(client))
    assert [finding.check for finding in findings] == CHECKS
    for finding in findings:
        assert bool(finding.fix) == (finding.outcome in {"failed", "warning"})
        assert finding.detail
    return {finding.check: finding for finding in findings}


def test_all_is_well() -> None:
    """Each check says what it found."""
    found = examined(WELL)
    assert {finding.outcome for finding in found.values()} == {"ok"}
    assert "LM Studio answers in " in found["server"].detail
    assert "/api/v1" in found["server"].detail
    assert found["auth"].detail == "no token is needed"
    assert found["loaded"].detail == "m"
    assert "m answered with one token in 0." in found["answer"].detail
    assert found["context"].detail == "16384 tokens of at most 32768"
    assert found["tools"].detail == 'get_weather({"city": "Paris"}), native'


# --- the token ---


def closed(request: Request) -> list[Step]:
    """List the models for one token only."""
    if request.headers.get("authorization") == "Bearer good":
        return json_answer({"models": [model("m", 16_384)]})
    return json_answer({"error": {"code": "invalid_api_key", "message": "An LM Studio API token is needed."}}, 401)


def test_a_token_that_is_needed() -> None:
    """None, a wrong one, the right one."""
    routes = {**WELL, V1: closed}
    none, wrong, right = examined(routes), examined(routes, api_token="bad"), examined(routes, api_token="good")
    assert (none["server"].outcome, none["auth"].outcome, none["models"].outcome) == ("ok", "failed", "skipped")
    assert "LM_API_TOKEN" in none["auth"].fix
    assert wrong["auth"].outcome == "failed"
    assert "new token" in wrong["auth"].fix
    assert right["auth"].detail == "a token is needed, and yours is accepted"
    assert right["structured"].outcome == "ok"


def test_a_token_that_is_not_needed() -> None:
    """Is told as well; it is no fault, and never shown."""
    found = examined(WELL, api_token="sesame")
    assert (found["auth"].outcome, found["auth"].detail) == ("ok", "a token is sent, though the server asks for none")
    assert not any("sesame" in finding.detail + finding.fix for finding in found.values())


# --- the models ---


def test_no_model_for_chats() -> None:
    """The fix says how to get one."""
    found = examined({**WELL, **lists({**model("e"), "type": "embedding"})})
    assert found["models"].outcome == "failed"
    assert "lmdeck models get" in found["models"].fix
    assert found["loaded"].outcome == "skipped"


def test_a_model_that_the_list_lacks() -> None:
    """Is a concern only: a server may know names that it does not list."""
    found = examined(WELL, model="other")
    assert (found["models"].outcome, found["answer"].outcome) == ("warning", "ok")
    assert "'other'" in found["models"].detail


@pytest.mark.parametrize("wanted", [None, "m"])
def test_a_model_that_the_first_request_loads(wanted: str | None) -> None:
    """Just-in-time loading is on where `/v1/models` shows what is not loaded; after the answer the context is known."""
    context = [0]

    def load(_: Request) -> list[Step]:
        context[0] = 4096
        return said("Yes")

    def listed(_: Request) -> Answer:
        return lists(model("m", context[0]))[V1]

    found = examined({**lists(visible=("m",)), V1: listed, CHAT: chat(word=load)}, model=wanted)
    assert found["loaded"].outcome == "ok"
    assert found["loaded"].detail == "none; the first request loads m (5.0 GB), which takes a while"
    assert found["context"].outcome == "warning"


def test_a_model_that_nothing_loads() -> None:
    """With just-in-time loading off, an idle model is a fault, and there are two ways out."""
    found = examined({**WELL, **lists(model("m"), model("n", 8192), visible=("n",))}, model="m")
    assert found["loaded"].outcome == "failed"
    assert "m is not loaded (loaded: n)" in found["loaded"].detail
    assert "lmdeck models load m" in found["loaded"].fix
    assert "Just in Time" in found["loaded"].fix
    assert found["answer"].outcome == "skipped"


@pytest.mark.parametrize(
    ("visible", "words"),
    [(("m", "n"), "others load at their first request"), (("m",), "others must be loaded first")],
)
def test_what_becomes_of_the_other_models(visible: tuple[str, ...], words: str) -> None:
    """Where one is loaded, the doctor tells what a request for another does."""
    found = examined({**WELL, **lists(model("m", 16_384), model("n"), visible=visible)})
    assert found["loaded"].outcome == "ok"
    assert words in found["loaded"].detail


def test_a_server_that_tells_little() -> None:
    """What another server does not tell is skipped, and nothing fails for it."""
    found = examined({OPENAI: json_answer({"data": [{"id": "m", "owned_by": "vllm"}]}), CHAT: chat()})
    assert [finding.check for finding in found.values() if finding.outcome == "skipped"] == ["loaded", "context"]
    assert found["server"].detail.startswith("vLLM answers")
    assert found["structured"].outcome == "ok"


@pytest.mark.parametrize(
    ("loaded", "most", "outcome"), [(4096, 32_768, "warning"), (4097, 32_768, "ok"), (2048, 2048, "ok")]
)
def test_a_small_context(loaded: int, most: int, outcome: str) -> None:
    """Small is what could be larger; the fix is a command."""
    finding = examined({**WELL, **lists(model("m", loaded, most))})["context"]
    assert finding.outcome == outcome
    assert finding.fix.endswith("`lmdeck models load m --context-length 16384`.") == (outcome == "warning")


# --- what a model can do ---


def test_a_token_without_text_is_an_answer() -> None:
    """The first token of a model that reasons may be nothing but a mark."""
    found = examined({**WELL, CHAT: chat(word=said("", finish="length"))})
    assert found["answer"].outcome == "ok"
    empty = examined({**WELL, CHAT: chat(word=said(""))})
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
        (call(arguments="{}"), "warning", "does not fit"),
        (call(name="weather"), "warning", "'weather'"),
        (said("It is sunny."), "warning", "'It is sunny.'"),
        (said("Let me think", finish="length"), "warning", "cut off"),
        (said(""), "warning", "empty"),
        (json_answer({"error": "Error rendering prompt with jinja template: no tools"}, 400), "warning", "jinja"),
        ([RESET], "failed", "broke"),
    ],
)
def test_tool_calls(tool: list[Step], outcome: str, words: str) -> None:
    """What a model cannot do is a concern; where the call came from is told."""
    found = examined({**WELL, CHAT: chat(tool=tool)})
    assert found["tools"].outcome == outcome
    assert words in found["tools"].detail
    assert found["structured"].outcome == ("skipped" if outcome == "failed" else "ok")


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (said("Paris, 5 letters."), "no JSON"),
        (said('{"capital": "Paris"}'), "letters"),
        (json_answer({"error": "'response_format.type' must be 'json_schema' or 'text'"}, 400), "response_format"),
    ],
)
def test_structured_output(thing: list[Step], words: str) -> None:
    """A server that does not hold the model to a schema is a concern: lmdeck checks and asks again."""
    finding = examined({**WELL, CHAT: chat(thing=thing)})["structured"]
    assert finding.outcome == "warning"
    assert words in finding.detail


# --- the command ---


def test_the_command_shows_one_line_a_check(run: Run) -> None:
    """A concern has its fix below it, and is no failure: the exit code is 0."""
    with Loopback(routes={**WELL, **lists(model("m", 4096))}) as server:
        done = run("doctor", LMDECK_BASE_URL=server.url)
    assert done.returncode == 0
    assert [line[0] for line in done.stdout.splitlines()] == [*"✓✓✓✓✓✓!", " ", *"✓✓"]
    assert "  → Load it anew with more" in done.stdout


def test_the_command_for_programs(run: Run) -> None:
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


def test_the_embedded_engine_is_well(run: Run) -> None:
    """A model that only says "Hello there" can be talked to, and the doctor says what it cannot do."""
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    outcomes = {check["check"]: check["outcome"] for check in report["checks"]}
    assert (done.returncode, report["ok"]) == (0, True)
    assert [name for name, outcome in outcomes.items() if outcome != "ok"] == ["tools", "structured"]
