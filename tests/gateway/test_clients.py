"""What Claude Code, Codex, PHP, Node and curl send, through the gateway; `tests/frameworks` has the libraries."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateways import MODEL, GatewayProcess, config_of, gateway
from lmdeck.testing import Answer as FakeAnswer
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.scripted_answers import PlannedCall

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
USER: Any = [{"role": "user", "content": "Weather in Paris?"}]
DIALECT = "qwen3-coder-xml"
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture(scope="module")
def running(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with gateway(
        tmp_path_factory.mktemp("gateway"), config_of([fake], '[aliases]\n"claude-*" = "x"\n'), is_measured=True
    ) as process:
        yield process


@pytest.fixture
def client(running: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as made:
        yield made


def script(*command: str, **variables: str) -> str:
    """Run a program and return what it printed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={"PATH": "/usr/bin:/bin", **variables}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- openai ---


async def test_openai_gets_an_embedded_call_in_async_code(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.tool_call("get_weather", city="Paris", dialect=DIALECT)
    async with (
        openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none") as client,
        client.chat.completions.stream(model=MODEL, messages=USER, tools=[TOOL]) as events,
    ):
        message = (await events.get_final_completion()).choices[0].message
    assert [call.function.arguments for call in message.tool_calls or []] == ['{"city": "Paris"}']


def test_openai_sees_a_cut_as_an_error(fake: FakeLMStudio, client: openai.OpenAI) -> None:
    fake.fail("early_end", reply="one two three four five six")
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=MODEL, messages=USER, stream=True))
    fake.fail("context_overflow_keep_first")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=USER)
    assert caught.value.code == "context_length_exceeded"


def test_openai_gets_models_responses_and_completions(fake: FakeLMStudio, client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    fake.reply("Hello").reply("Hello")
    assert client.responses.create(model=MODEL, input="Hi").output_text == "Hello"
    assert client.completions.create(model=MODEL, prompt="Hi").choices[0].text == "Hello"


# --- anthropic and Claude Code ---


def test_claude_codes_request_is_answered(fake: FakeLMStudio, running: GatewayProcess) -> None:
    """System blocks with cache marks, server tools, thinking, metadata, and `count_tokens` with the same shape."""
    fake.reply("Done")
    body = {
        "model": MODEL,
        "max_tokens": 32000,
        "stream": True,
        "system": [{"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Fix it", "cache_control": {"type": "ephemeral"}}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a.py"}]},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
        "tools": [
            {
                "name": "Bash",
                "description": "run",
                "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
            },
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "metadata": {"user_id": "user_1"},
        "temperature": 1,
    }
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "claude-code-20250219", "x-api-key": "none"}
    counted = running.request("POST", "/v1/messages/count_tokens?beta=true", {**body, "model": "unknown"}, **headers)
    assert counted.json["input_tokens"] > 20, counted.body
    answer = running.request("POST", "/v1/messages?beta=true", body, **headers)
    assert answer.status == 200, answer.body
    deltas = [event["delta"].get("text", "") for event in answer.events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == "Done"
    assert answer.events[-1]["type"] == "message_stop"


# --- Codex ---


def test_codexs_request_is_answered(fake: FakeLMStudio, running: GatewayProcess) -> None:
    """Custom tools, web search, verbosity, reasoning items and the developer's role are all accepted."""
    fake.tool_call("shell", command=["ls"], dialect="qwen3-coder-xml")
    body = {
        "model": MODEL,
        "instructions": "You are Codex.",
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "sandbox"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List files"}]},
        ],
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"command": {"type": "array", "items": {"type": "string"}}},
                },
            },
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
            },
            {"type": "web_search"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199",
        "text": {"verbosity": "low"},
    }
    answer = running.request("POST", "/v1/responses", body, Authorization="Bearer none", originator="codex_cli_rs")
    assert answer.status == 200, answer.body
    assert answer.events[-1]["type"] == "response.completed"
    calls = [item for item in answer.events[-1]["response"]["output"] if item["type"] == "function_call"]
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [("shell", {"command": ["ls"]})]


@pytest.mark.parametrize("stream", [False, True])
def test_codex_continues_after_parallel_calls(fake: FakeLMStudio, running: GatewayProcess, stream: bool) -> None:
    """It sends the whole history, since nothing is stored: encrypted reasoning, calls of its own tools, and their outputs."""
    said = [{"type": "output_text", "text": "I look."}]
    history = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List files"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "message", "role": "assistant", "content": said},
        {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin Patch", "call_id": "call_2"},
        {"type": "function_call_output", "call_id": "call_1", "output": "a.py"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done"},
    ]
    shell = {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}}
    body = {
        "model": MODEL,
        "instructions": "You are Codex.",
        "input": history,
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": shell},
            {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
            {"type": "local_shell"},
        ],
        "parallel_tool_calls": True,
        "store": False,
        "stream": stream,
        "include": ["reasoning.encrypted_content"],
    }
    calls = tuple(PlannedCall(name="shell", arguments={"command": [name]}) for name in ("pwd", "id"))
    fake.respond(lambda _: FakeAnswer(calls=calls, dialect=DIALECT))
    answer = running.request("POST", "/v1/responses", body)
    assert answer.status == 200, answer.body
    whole = answer.events[-1]["response"] if stream else answer.json
    made = [item for item in whole["output"] if item["type"] == "function_call"]
    assert [json.loads(item["arguments"]) for item in made] == [{"command": ["pwd"]}, {"command": ["id"]}]
    assert len({item["call_id"] for item in made}) == 2
    if stream:
        assert [event["sequence_number"] for event in answer.events] == list(range(len(answer.events)))


# --- other languages ---

PHP = r"""<?php
$weather = ['name' => 'get_weather', 'parameters' => ['type' => 'object', 'properties' => []]];
$body = ['model' => getenv('MODEL'), 'messages' => [['role' => 'user', 'content' => 'Weather?']],
  'tools' => [['type' => 'function', 'function' => $weather]]];
$curl = curl_init(getenv('URL') . '/v1/chat/completions');
curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_POSTFIELDS => json_encode($body),
  CURLOPT_HTTPHEADER => ['Content-Type: application/json', 'Authorization: Bearer none']]);
$answer = json_decode(curl_exec($curl), true);
echo $answer['choices'][0]['message']['tool_calls'][0]['function']['name'], ' ', curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
"""
NODE = r"""
const answer = await fetch(process.env.URL + "/v1/chat/completions", {method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify({model: process.env.MODEL, stream: true, messages: [{role: "user", content: "Hi"},
    {role: "assistant", content: null, tool_calls: [{id: "c1", type: "function", function: {name: "f", arguments: "{}"}}]},
    {role: "tool", tool_call_id: "c1", content: "42"}]})})
let text = "", rest = ""
for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (rest + part).split("\n"); rest = lines.pop()
  for (const line of lines) if (line.startsWith("data: {")) text += JSON.parse(line.slice(6)).choices[0]?.delta?.content ?? ""
}
console.log(text)
"""


def test_php_gets_an_embedded_call(fake: FakeLMStudio, running: GatewayProcess, tmp_path: Path) -> None:
    """It sends `"properties": []`."""
    fake.tool_call("get_weather", dialect=DIALECT)
    (tmp_path / "ask.php").write_text(PHP)
    assert script("php", str(tmp_path / "ask.php"), URL=running.url, MODEL=MODEL) == "get_weather 200"


def test_node_reads_a_stream(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("Forty-two, naïve café.")
    assert (
        script("node", "--input-type=module", "-e", NODE, URL=running.url, MODEL=MODEL).strip()
        == "Forty-two, naïve café."
    )


def test_curl_gets_an_answer_and_a_typed_error(fake: FakeLMStudio, running: GatewayProcess) -> None:
    fake.reply("Hello")
    body = json.dumps({"model": MODEL, "messages": USER, "stream": True})
    url = f"{running.url}/v1/chat/completions"
    arguments = ["curl", "-sS", "-N", "-H", "Content-Type: application/json", "-d", body, url]
    assert script(*arguments).rstrip().endswith("data: [DONE]")
    arguments[-2] = body.replace(MODEL, "nope")
    assert json.loads(script(*arguments, "-w", "\n").splitlines()[0])["error"]["code"] == "model_not_found"
