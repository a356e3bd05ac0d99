"""`lmdeck run` and `lmdeck proxy`: other programs' clients get the repaired answer; exit codes and signals pass through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tools import COMMAND, Run

from lmdeck.testing import FakeLMStudio

MODEL = "qwen2.5-7b-instruct"
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
PROGRAM = f"""
import anthropic, openai
tools = [{WEATHER!r}]
messages = [{{"role": "user", "content": "Hi"}}]
with openai.OpenAI() as client:
    answer = client.chat.completions.create(model={MODEL!r}, messages=messages, tools=tools)
    print(answer.choices[0].message.tool_calls[0].function.arguments)
with anthropic.Anthropic() as client:
    print(client.messages.create(model={MODEL!r}, max_tokens=9, messages=messages).content[0].text)
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and exit codes are POSIX's")


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


def lmdeck(*arguments: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, timeout=100, check=False, **options
    )


def test_a_program_gets_repaired_answers_without_a_change(fake: FakeLMStudio, tmp_path: Path) -> None:
    fake.tool_call("get_weather", city="Paris", dialect="qwen3-coder-xml").reply("Hello")
    done = lmdeck("--base-url", fake.base_url, "run", "--", sys.executable, "-c", PROGRAM, folder=tmp_path)
    assert done.stdout.splitlines() == ['{"city": "Paris"}', "Hello"]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("program", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-program-anywhere"], 127),
        (["/"], 126),
    ],
)
def test_the_exit_code_is_the_programs(run: Run, program: list[str], code: int) -> None:
    assert run("run", "--", *program).returncode == code


def test_options_of_the_program_are_its_own(tmp_path: Path) -> None:
    """Options after the program's name belong to the program, also without the two dashes."""
    done = lmdeck("run", "printf", "%s|", "--host", "-h", folder=tmp_path)
    assert done.stdout == "--host|-h|"


def test_the_environment_leads_to_the_proxy_and_shows_no_key(tmp_path: Path) -> None:
    given = {**os.environ, "OPENAI_API_KEY": "sk-true", "ANTHROPIC_AUTH_TOKEN": "true"}
    done = lmdeck("run", "env", folder=tmp_path, env=given)
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert seen["OPENAI_BASE_URL"].removesuffix("/v1") == seen["ANTHROPIC_BASE_URL"]
    assert seen["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:")
    assert "true" not in {seen["OPENAI_API_KEY"], seen.get("ANTHROPIC_AUTH_TOKEN", "")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both(tmp_path: Path, number: signal.Signals) -> None:
    mark = tmp_path / "pid"
    script = (
        f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
        "print(flush=True); time.sleep(90)"
    )
    with subprocess.Popen(
        [*COMMAND, "run", "--", sys.executable, "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(60) in {128 + number, 1, 130}
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_the_proxy_serves_until_a_signal_comes(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Requests of foreign pages and names are refused, in the wire format."""
    fake.reply("Hello")
    with subprocess.Popen(
        [*COMMAND, "--base-url", fake.base_url, "proxy", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).encode()

        def post(**headers: str) -> Any:
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", body, {"Content-Type": "application/json", **headers}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        assert post()["choices"][0]["message"]["content"] == "Hello"
        for headers, status in (({"Origin": "https://evil.example"}, 403), ({"Host": "evil.example"}, 400)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                post(**headers)
            with caught.value as refused:
                assert refused.code == status
                assert json.load(refused)["error"]["message"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in {0, 130}
    assert len(fake.requests) == 1
