"""The server in front of a real model; each test generates few tokens, to be fast on any machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from lmdeck.engine import EngineError, EngineServer
from lmdeck.engine.llama import LlamaServer
from loopback import PATIENCE
from wire_tools import ask, asking, chat, eventually, post

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

FRANCE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
ENDLESS = {"messages": [{"role": "user", "content": "Count."}], "logit_bias": {"0": -100, "2": -100}}
"""A request whose answer only `max_tokens` ends: the tokens that could end it are forbidden."""


def burned(seconds: float) -> float:
    """Measure the processor time that this process uses in the given number of seconds."""
    before = time.process_time()
    time.sleep(seconds)
    return time.process_time() - before


def test_the_model_is_listed_as_loaded(engine: EngineServer) -> None:
    model, embedding = ask(engine.base_url, "GET", "/api/v0/models").json["data"]
    assert (embedding["id"], embedding["type"]) == (f"text-embedding-{engine.model}", "embeddings")
    assert model["id"] == engine.model == "smollm2-135m-instruct"
    assert (model["arch"], model["quantization"], model["state"]) == ("llama", "Q4_1", "loaded")
    assert model["loaded_context_length"] == 8192


def test_it_knows_the_capital_of_france_streamed_or_not(engine: EngineServer) -> None:
    fields: dict[str, Any] = {
        "messages": FRANCE,
        "temperature": 0,
        "max_tokens": 16,
        "seed": 1,
    }  # a seed: not from kept prompts
    whole = chat(engine.base_url, **fields).json
    streamed = chat(engine.base_url, **fields, stream=True, stream_options={"include_usage": True})
    assert whole["choices"][0]["message"]["content"] == streamed.text == "The capital of France is Paris."
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["stats"]["stop_reason"] == "eosFound"
    assert whole["usage"] == streamed.chunks[-1]["usage"]
    assert len(streamed.deltas) > 5


def test_max_tokens(engine: EngineServer) -> None:
    body = chat(engine.base_url, messages=FRANCE, temperature=0, seed=1, max_tokens=3).json
    assert body["choices"][0]["message"]["content"] == "The capital of"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["stats"]["stop_reason"] == "maxPredictedTokensReached"
    assert body["usage"]["completion_tokens"] == 3


def test_a_stop_string_ends_the_answer_inside_a_token_and_is_counted(engine: EngineServer) -> None:
    fields: dict[str, Any] = {"messages": FRANCE, "temperature": 0, "seed": 1, "max_tokens": 16, "stop": ["ital of"]}
    plain = chat(engine.base_url, messages=FRANCE, max_tokens=1).json["usage"]
    body = chat(engine.base_url, **fields).json
    assert body["choices"][0]["message"]["content"] == chat(engine.base_url, **fields, stream=True).text == "The cap"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["stats"]["stop_reason"] == "stopStringFound"
    assert body["usage"]["prompt_tokens"] == plain["prompt_tokens"]
    assert body["usage"]["completion_tokens"] == 3


def test_a_seed_makes_sampling_repeatable(engine: EngineServer) -> None:
    def sample(seed: int) -> str:
        body = chat(engine.base_url, messages=FRANCE, temperature=1.5, max_tokens=12, seed=seed).json
        return str(body["choices"][0]["message"]["content"])

    first = sample(2)
    assert sample(2) == first
    assert sample(3) != first


def test_a_completion_goes_on_from_the_prompt_alone(engine: EngineServer) -> None:
    body = post(engine.base_url, "/v1/completions", prompt="One, two, three,", max_tokens=4, temperature=0).json
    assert "four" in body["choices"][0]["text"]
    assert body["usage"]["prompt_tokens"] < 10  # no template around it


def test_a_schema_is_obeyed(engine: EngineServer) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "people": {"type": "integer", "maximum": 99_999_999},
        },
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    answer = chat(
        engine.base_url, messages=FRANCE, temperature=0, response_format=response_format, max_tokens=60, stream=True
    )
    found = json.loads(answer.text)
    assert found.keys() == {"city", "people"}
    assert isinstance(found["people"], int)


def test_a_schema_that_no_grammar_can_be_made_of(engine: EngineServer) -> None:
    response_format = {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}
    answer = chat(engine.base_url, response_format=response_format)
    assert answer.status == 400
    assert answer.json["error"].startswith("Failed to initialize samplers: failed to parse grammar")


def test_a_required_tool_call_is_valid_streamed_or_not(engine: EngineServer) -> None:
    question = [{"role": "user", "content": "What is the weather in Paris, in celsius?"}]
    fields: dict[str, Any] = {"messages": question, "temperature": 0, "tools": [WEATHER], "tool_choice": "required"}
    choice = chat(engine.base_url, **fields).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    arguments = json.loads(call["function"]["arguments"])
    assert isinstance(arguments["city"], str)
    assert arguments["unit"] in {"celsius", "fahrenheit"}
    deltas = [delta["tool_calls"][0]["function"] for delta in chat(engine.base_url, **fields, stream=True).deltas[:-1]]
    assert deltas[0] == {"name": "get_weather", "arguments": ""}
    assert json.loads("".join(delta["arguments"] for delta in deltas)) == arguments
    assert len(deltas) > 5

    calls = {"role": "assistant", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": call["id"], "content": '{"temperature": 21, "sky": "sunny"}'}
    answer = chat(engine.base_url, messages=[*question, calls, result], tools=[WEATHER], temperature=0, max_tokens=40)
    assert answer.json["choices"][0]["message"]["content"]


def test_a_prompt_that_is_too_long(engine: EngineServer) -> None:
    messages = [{"role": "user", "content": "a b c d " * 3000}]
    answer = chat(engine.base_url, messages=messages)
    assert answer.status == 400
    assert "greater than the context length" in answer.json["error"]
    frame = chat(engine.base_url, messages=messages, stream=True).frames[0]
    assert frame.startswith(b"event: error\ndata: ")


def test_a_client_that_leaves_stops_the_generation(engine: EngineServer) -> None:
    with asking(engine.base_url, **ENDLESS, max_tokens=4000, stream=True) as connection:
        assert connection.recv(100)
        eventually(lambda: burned(0.3) > 0.05)  # it is at work
    eventually(lambda: burned(0.2) < 0.05)


def test_requests_queue_and_a_waiting_client_can_leave(engine: EngineServer) -> None:
    answers: list[str] = []

    def queue() -> None:
        answers.append(
            chat(engine.base_url, messages=FRANCE, temperature=0, seed=1, max_tokens=3).json["choices"][0]["message"][
                "content"
            ]
        )

    with asking(engine.base_url, **ENDLESS, max_tokens=4000, stream=True) as first:
        assert first.recv(100)
        with asking(engine.base_url, **ENDLESS, max_tokens=4000):
            time.sleep(0.1)  # it waits, and leaves
        waiting = threading.Thread(target=queue)
        waiting.start()
        time.sleep(0.3)
        assert not answers
    waiting.join(PATIENCE)
    assert answers == ["The capital of"]


def test_serve_answers_quietly_until_ctrl_c(weights: Path) -> None:
    program = (
        f"from lmdeck.engine import serve\nserve({str(weights)!r}, port=0, on_ready=lambda url: print(url, flush=True))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RUST_LOG"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with asking(url, **ENDLESS, max_tokens=4000, stream=True) as connection:
            assert connection.recv(100)
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_ctrl_c_does_not_wait_for_a_long_prompt(weights: Path) -> None:
    program = (
        f"from lmdeck.engine import serve\nserve({str(weights)!r}, port=0, on_ready=lambda url: print(url, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with asking(url, messages=[{"role": "user", "content": "a b c d " * 1500}], max_tokens=1):
            time.sleep(1)  # the prompt takes far longer
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_the_beginning_of_a_prompt_is_processed_once_also_after_another_prompt(weights: Path) -> None:
    async def processed() -> list[int]:
        answers = [await server.ask("/completion", {"prompt": each, "n_predict": 1}) for each in prompts]
        return [answer["timings"]["prompt_n"] for answer in answers]

    tools = "The tools are: " + ", ".join(f"look_{number}" for number in range(20))
    prompts = [f"{tools}. Look left.", "Something else.", f"{tools}. Look right."]
    server = LlamaServer(weights, context_length=1024)
    try:
        first, _, second = asyncio.run(processed())
    finally:
        server.close()
    assert first > 60
    assert second < 10


def test_a_program_that_ends_in_the_middle_of_an_answer_ends_cleanly(weights: Path) -> None:
    program = f"""
import json, urllib.request
from lmdeck.engine import EngineServer
server = EngineServer.start({str(weights)!r})
fields = {{**{ENDLESS!r}, "max_tokens": 4000, "stream": True}}
url, kind = server.base_url + "/v1/chat/completions", {{"Content-Type": "application/json"}}
request = urllib.request.Request(url, json.dumps(fields).encode(), kind)
answer = urllib.request.urlopen(request)
answer.read(100)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=4 * PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_requantize_is_accepted_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="requantize has no effect"), pytest.raises(EngineError):
        EngineServer.start(tmp_path / "none.gguf", requantize="Q8_0")


def test_a_damaged_model_is_reported_and_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    with weights.open("rb") as whole:
        damaged.write_bytes(whole.read(8 << 20))
    before = set(threading.enumerate())
    with pytest.raises(EngineError, match=r"damaged\.gguf cannot be loaded"):
        EngineServer.start(damaged)
    assert set(threading.enumerate()) <= before


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP, which Linux has, shows its settings")
@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ({}, "GOMP_SPINCOUNT = '200'"),
        ({"OMP_WAIT_POLICY": "passive"}, "GOMP_SPINCOUNT = '0'"),
        ({"GOMP_SPINCOUNT": "7"}, "GOMP_SPINCOUNT = '7'"),
    ],
)
def test_threads_sleep_after_a_short_wait_unless_the_user_chose_otherwise(chosen: dict[str, str], shown: str) -> None:
    code = """
import os
from lmdeck.engine import llama
before = dict(os.environ)
llama.import_library()
assert os.environ == before
"""
    unset = {name: value for name, value in os.environ.items() if name not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**unset, **chosen, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stderr
