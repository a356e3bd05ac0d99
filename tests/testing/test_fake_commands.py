"""`lmdeck fake`, `record`, `replay` and `verdict` as programs; and scenario files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from command_line import run_here
from lmdeck import ConfigurationError, LMStudio
from lmdeck.testing.scenario import load_scenario
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-c", "from lmdeck.cli import main; main()"]
SCENARIO = """
seed = 1
[[model]]
key = "tiny"
context_length = 2048
[[answer]]
when = "weather"
tool_call = { name = "get_weather", arguments = { city = "Paris" } }
dialect = "hermes-json"
[[answer]]
reply = "Hello"
reasoning = "greet"
[[answer]]
error = 503
message = "busy"
[[answer]]
fail = "early_end"
after_chunks = 2
[[answer]]
json = { name = "Ada" }
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_here(*arguments, environment={**os.environ, **environment})


@contextmanager
def running(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A command that serves, and the address it tells."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            yield next(word for word in first.split() if word.startswith("http") and word.count(":") == 2), process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    return path


def test_a_scenario_is_a_script(scenario: Path) -> None:
    with load_scenario(scenario).fake() as fake, fake.client(retry_attempts=1) as lm:
        chat = lm.chat("tiny")
        assert chat.user("Hi").send().reasoning == "greet"
        assert "<tool_call>" in str(chat.user("The weather?").send().raw)
        assert lm.models.get("tiny").instances[0].context_length == 2048
        assert fake.pending == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("answer = 1", "Expected `array`"),
        ("[[answer]]\nrepply = 'x'", "unknown field `repply`"),
        ("[[answer]\n", "not TOML"),
        ("[[answer]]\nfail = 'explode'", "no fault 'explode'"),
        ("[[answer]]\ndialect = 'klingon'", "no dialect 'klingon'"),
    ],
)
def test_a_wrong_scenario_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_scenario(tmp_path / "s.toml").fake()
    done = run("fake", str(tmp_path / "s.toml"))
    assert done.returncode == 2
    assert said.replace("`", "") in done.stderr.replace("`", "")


def test_fake_serves_any_language_and_ends_with_ctrl_c(scenario: Path) -> None:
    with running("fake", str(scenario), "--port", "0") as (url, process):
        with LMStudio(base_url=url, retry_attempts=1) as lm:
            assert lm.chat("tiny").user("Hi").send().content == "Hello"
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    assert "POST /v1/chat/completions 'Hi'" in rest


def test_faults_are_listed() -> None:
    rows = json.loads(run("fake", "--faults", "--json").stdout)
    assert {"name": "cut", "expect": "error"}.items() <= next(row for row in rows if row["name"] == "cut").items()
    assert "context_overflow_n_keep" in run("fake", "--faults").stdout


def test_record_and_replay(tmp_path: Path) -> None:
    cassette = tmp_path / "cassette.jsonl"
    with (
        running("fake", "--port", "0") as (upstream, _),
        running("record", "--upstream", upstream, "--port", "0", "--to", str(cassette)) as (url, _),
        LMStudio(base_url=url) as lm,
    ):
        assert lm.chat().user("Hallo Zoë").send().content == "You said: Hallo Zoë"
    shown = run("replay", str(cassette))
    assert shown.returncode == 0
    assert "You said: Hallo Zoë" in shown.stdout
    rows = [json.loads(line) for line in run("replay", str(cassette), "--json").stdout.splitlines()]
    assert rows[-1]["reply"]["content"]["message"] == "You said: Hallo Zoë"
    assert run("replay", str(tmp_path / "none")).returncode == 2


PROGRAM = """
import sys
import lmdeck
try:
    print(lmdeck.chat().user("Hi").send().content)
except lmdeck.LMStudioError as error:
    sys.exit(str(error))
"""
CARELESS = """
import json, os, urllib.request
body = json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()
url, headers = os.environ["OPENAI_BASE_URL"] + "/chat/completions", {"Content-Type": "application/json"}
answer = json.load(urllib.request.urlopen(urllib.request.Request(url, body, headers)))
print(answer.get("choices", [{"message": {"content": "?"}}])[0]["message"]["content"])
"""
LIMITS = {"LMDECK_TIMEOUT": "3", "LMDECK_FIRST_TOKEN_TIMEOUT": "3", "LMDECK_RETRY_DELAY": "0.01"}


def judged(program: str, *faults: str, seconds: str) -> tuple[int, dict[str, str]]:
    """Return the exit code and the outcomes, without repair; a busy machine needs seconds to start a program."""
    options = ["--no-repaired", "--timeout", seconds, *(option for fault in faults for option in ("--fault", fault))]
    done = run("verdict", "--json", *options, "--", sys.executable, "-c", program, **LIMITS)
    report = json.loads(done.stdout)
    return done.returncode, {trial["fault"]: trial["outcome"] for trial in report["trials"]}


def test_a_robust_program_passes_the_verdict() -> None:
    faults = ("cut", "hang", "crash", "trickle", "refuse", "unexpected_endpoint", "empty_reply")
    code, outcomes = judged(PROGRAM, *faults, seconds="60")
    assert code == 0
    assert outcomes == {
        "cut": "reported",
        "hang": "reported",
        "crash": "reported",
        "trickle": "survived",
        "refuse": "reported",
        "unexpected_endpoint": "reported",
        "empty_reply": "reported",
    }


def test_a_careless_program_gets_an_outcome_for_each_fault() -> None:
    code, outcomes = judged(CARELESS, "hang", "crash", "unexpected_endpoint", "trickle", seconds="10")
    assert code == 1
    assert outcomes == {
        "hang": "hung",
        "crash": "crashed",
        "unexpected_endpoint": "wrong answer",
        "trickle": "survived",
    }


OPENAI = """
import openai
try:
    with openai.OpenAI(max_retries=0) as client:
        messages = [{"role": "user", "content": "Hi"}]
        chunks = client.chat.completions.create(model="qwen2.5-7b-instruct", messages=messages, stream=True)
        print("".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices))
except openai.OpenAIError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.no_cover  # OpenAI's client takes a second to start, and twice as long where it is measured
def test_the_same_program_is_tried_with_repaired_answers() -> None:
    """What OpenAI's client takes for an answer, it says is an error; and retries are made for it."""
    pytest.importorskip("openai")
    options = [option for fault in ("early_end", "empty_reply", "trickle") for option in ("--fault", fault)]
    program = ("--", sys.executable, "-c", OPENAI)
    report = json.loads(run("verdict", "--json", "--timeout", "60", *options, *program, **LIMITS).stdout)
    assert (report["ok"], report["repaired_ok"]) == (False, True)
    assert report["repaired_expected"] == report["expected"]
    assert {trial["fault"]: (trial["outcome"], trial["repaired"]["outcome"]) for trial in report["trials"]} == {
        "early_end": ("wrong answer", "reported"),
        "empty_reply": ("wrong answer", "reported"),
        "trickle": ("survived", "survived"),
    }


def test_a_program_that_fails_without_faults_is_refused() -> None:
    done = run("verdict", "--", sys.executable, "-c", "raise SystemExit('no')")
    assert done.returncode == 2
    assert "without any fault" in done.stderr
    assert run("verdict", "--", "no-such-program").returncode == 2


def test_the_verdict_is_a_table() -> None:
    done = run(
        "verdict", "--fault", "cut", "--fault", "trickle", "--", sys.executable, "-c", PROGRAM, COLUMNS="120", **LIMITS
    )
    assert done.returncode == 0
    assert re.search(r"^cut +✓ reported", done.stdout, re.MULTILINE)
    assert "as it is: 1 survived · 1 reported" in done.stdout
    assert "with lmdeck run: 1 survived · 1 reported" in done.stdout
