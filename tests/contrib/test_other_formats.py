"""The other wire formats through the official clients: OpenAI's responses, completions, embeddings; Anthropic's messages."""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from asking import last_asked, nothing_left_behind
from lmdeck.contrib.httpx2 import RepairTransport
from lmdeck.contrib.openai import OpenAI, http_client
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.faults import FAULTS

MODEL = "qwen2.5-7b-instruct"
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"
FAST: Any = {"retry_delay": 0.001, "first_token_timeout": 1.5, "timeout": 1.5, "retry_attempts": 2}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
TOOL: Any = {"name": "get_weather", "input_schema": SCHEMA}
PARIS = [("get_weather", {"city": "Paris"})]


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with nothing_left_behind(), FakeLMStudio(seed=0) as server:
        yield server


@pytest.fixture
def echo() -> Iterator[FakeLMStudio]:
    """A fake that repeats what it is asked."""
    with nothing_left_behind(), FakeLMStudio(seed=0, strict=False) as server:
        yield server


class Seen:
    """What a user has in hand at the end."""

    def __init__(self) -> None:
        self.shown = self.content = self.reasoning = ""
        self.calls: list[tuple[str, Any]] = []
        self.ids: list[str] = []
        self.end: Any = None
        self.receipt: Any = None


Ask = Callable[..., Seen]


def respond(url: str, *, stream: bool = False, **options: Any) -> Seen:
    seen = Seen()
    asked: Any = {"model": MODEL, "input": "Hi", **options}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=http_client(**FAST)) as client:
        if not stream:
            whole = client.responses.create(**asked)
            seen.shown = whole.output_text
        else:
            sequence = []
            for event in client.responses.create(**asked, stream=True):
                sequence.append(event.sequence_number)
                seen.shown += event.delta if event.type == "response.output_text.delta" else ""
                if event.type in {"response.completed", "response.incomplete"}:
                    whole = event.response
            assert sequence == list(range(len(sequence)))
    seen.content, seen.end = whole.output_text, whole.status
    for item in whole.output:
        if item.type == "function_call":
            seen.calls.append((item.name, json.loads(item.arguments)))
            seen.ids.append(item.call_id)
        elif item.type == "reasoning":
            seen.reasoning += "".join(part.text for part in item.content or ())
        elif item.type == "custom_tool_call":
            seen.calls.append((item.name, item.input))
    seen.receipt = (whole.model_extra or {})["lmdeck"]
    assert whole.usage
    return seen


def message(url: str, *, stream: bool = False, **options: Any) -> Seen:
    seen = Seen()
    asked: Any = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        **options,
    }
    import anthropic  # whose 1,500 modules take a second

    http = httpx2.Client(transport=RepairTransport(**FAST), timeout=None)
    with anthropic.Anthropic(base_url=url, api_key="x", http_client=http) as client:
        if not stream:
            whole = client.messages.create(**asked)
            seen.receipt = (whole.model_extra or {})["lmdeck"]
        else:
            with client.messages.stream(**asked) as events:
                for event in events:
                    if event.type == "text":
                        seen.shown += event.text
                    if event.type == "message_delta":
                        seen.receipt = (event.model_extra or {})["lmdeck"]
                whole = events.get_final_message()
    seen.end = whole.stop_reason
    for block in whole.content:
        if block.type == "text":
            seen.content += block.text
        elif block.type == "thinking":
            seen.reasoning += block.thinking
        elif block.type == "tool_use":
            seen.calls.append((block.name, block.input))
            seen.ids.append(block.id)
    return seen


def respond_streamed(url: str, **options: Any) -> Seen:
    return respond(url, stream=True, **options)


def message_streamed(url: str, **options: Any) -> Seen:
    return message(url, stream=True, **options)


BOTH = pytest.mark.parametrize("ask", [respond, respond_streamed, message, message_streamed])
RESPONSES = pytest.mark.parametrize("ask", [respond, respond_streamed])
MESSAGES = pytest.mark.parametrize("ask", [message, message_streamed])


def tools_for(ask: Ask) -> list[Any]:
    return [TOOL] if ask in (message, message_streamed) else [FUNCTION]


@BOTH
def test_an_answer_without_faults_comes_as_it_was(fake: FakeLMStudio, ask: Ask) -> None:
    fake.reply("Hello there", reasoning="A greeting.")
    seen = ask(fake.base_url)
    assert (seen.content, seen.reasoning, seen.calls) == ("Hello there", "A greeting.", [])
    assert seen.end in {"completed", "end_turn"}
    assert seen.shown in {"Hello there", ""}
    assert seen.receipt == {"problems": [], "rules": []}


@BOTH
@pytest.mark.parametrize("dialect", ["native", "qwen3-coder-xml", "hermes-json", "gpt-oss-harmony"])
def test_calls_are_found_in_every_dialect(fake: FakeLMStudio, ask: Ask, dialect: str) -> None:
    given: Any = {} if dialect == "native" else {"dialect": dialect}
    fake.tool_call("get_weather", content="I look.", city="Paris", **given)
    seen = ask(fake.base_url, tools=tools_for(ask))
    assert (seen.content.strip(), seen.calls) == ("I look.", PARIS)
    assert seen.end in {"completed", "tool_use"}
    assert all(seen.ids)


@BOTH
def test_an_answer_cut_by_its_limit_says_so(fake: FakeLMStudio, ask: Ask) -> None:
    fake.reply("Once upon", finish_reason="length")
    seen = ask(fake.base_url)
    assert (seen.content, seen.end) in {("Once upon", "incomplete"), ("Once upon", "max_tokens")}


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_survived_or_one_of_the_clients_own_exceptions(echo: FakeLMStudio, ask: Ask, fault: str) -> None:
    if FAULTS[fault].closes_port:
        echo.close_port()
    else:
        echo.fail_always(fault)
    if FAULTS[fault].expect == "error":
        import anthropic

        with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
            ask(echo.base_url, tools=tools_for(ask))
        is_midstream = ask in (message_streamed, respond_streamed)
        assert is_midstream or caught.value.status_code >= 400
        return
    seen = ask(echo.base_url, tools=tools_for(ask))
    assert seen.content or seen.calls


@RESPONSES
def test_what_codex_sends_is_made_acceptable(fake: FakeLMStudio, ask: Ask) -> None:
    """Custom and hosted tools, verbosity without a format, the developer role, calls of custom tools in the history."""
    fake.tool_call("apply_patch", input="*** Begin Patch")
    seen = ask(
        fake.base_url,
        input=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"type": "message", "role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "x"},
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** End"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ],
        tools=[
            FUNCTION,
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
            },
            {"type": "web_search"},
        ],
        text={"verbosity": "low"},
        tool_choice={"type": "custom", "name": "apply_patch"},
    )
    assert seen.calls == [("apply_patch", "*** Begin Patch")]
    body = last_asked(fake).body
    assert [tool["name"] for tool in body["tools"]] == ["apply_patch"]
    assert (body["tool_choice"], body["text"]) == ("required", {"verbosity": "low", "format": {"type": "text"}})
    assert [item["type"] for item in body["input"]] == [
        "message", "message", "reasoning", "function_call", "function_call_output",
    ]  # fmt: skip
    assert {"custom_tools", "server_tools", "tool_choice", "empty_text"} <= set(seen.receipt["rules"])


@MESSAGES
def test_what_claude_code_sends_is_made_acceptable(fake: FakeLMStudio, ask: Ask) -> None:
    """Server tools, a system list, images in results, thinking blocks and extra fields are all converted."""
    fake.tool_call("get_weather", city="Paris")
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 16).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}
    seen = ask(
        fake.base_url,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}},
                    {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "21"}, image]}
                ],
            },
        ],
        tools=[TOOL, {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        metadata={"user_id": "x"},
    )
    assert seen.calls == PARIS
    body = last_asked(fake).body
    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "image"]
    assert {"server_tools", "content_parts"} <= set(seen.receipt["rules"])


def test_counting_tokens_is_an_error_where_the_server_cannot(fake: FakeLMStudio) -> None:
    import anthropic

    http = httpx2.Client(transport=RepairTransport())
    with (
        anthropic.Anthropic(base_url=fake.base_url, api_key="x", http_client=http) as client,
        pytest.raises(anthropic.NotFoundError),
    ):
        client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "Hi"}])


@RESPONSES
@pytest.mark.parametrize(
    ("content", "reasoning"),
    [("", 'So {"city": "Paris"} it is.'), ('Here: {"city": "Paris"}', ""), ('{"city": "Paris"}', "")],
)
def test_json_is_found_where_it_was_asked_for(fake: FakeLMStudio, ask: Ask, content: str, reasoning: str) -> None:
    fake.reply(content, reasoning=reasoning)
    seen = ask(fake.base_url, text={"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA}})
    assert json.loads(seen.content) == {"city": "Paris"}


@BOTH
def test_ids_of_the_history_are_made_unique(fake: FakeLMStudio, ask: Ask) -> None:
    """A server that numbers its calls anew in each answer gives the same id twice."""
    fake.reply("Done")
    if ask in (respond, respond_streamed):
        call = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "c", "output": "21"}
        ask(fake.base_url, tools=[FUNCTION], input=[call, result, call, result])
        calls = [item["call_id"] for item in last_asked(fake).body["input"]]
    else:
        use = {"type": "tool_use", "id": "c", "name": "get_weather", "input": {}}
        used = {"type": "tool_result", "tool_use_id": "c", "content": "21"}
        turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [used]}]
        ask(fake.base_url, tools=[TOOL], messages=[{"role": "user", "content": "Hi"}, *turns, *turns])
        blocks = [turn["content"][0] for turn in last_asked(fake).body["messages"][1:]]
        calls = [block.get("id") or block["tool_use_id"] for block in blocks]
    assert calls[0] == calls[1] == "c"
    assert calls[2] == calls[3] != "c"


@RESPONSES
def test_a_call_of_the_server_itself_passes_through(fake: FakeLMStudio, ask: Ask) -> None:
    fake.server_tool("find", "found", then="Here it is.", q=1)
    server = {"type": "mcp", "server_label": "fake", "server_url": "http://127.0.0.1:9/"}
    seen = ask(fake.base_url, tools=[server])
    assert seen.content == "Here it is."


def test_the_response_keeps_its_id_and_can_be_continued(fake: FakeLMStudio) -> None:
    fake.reply("One").reply("Two")
    with OpenAI(base_url=fake.base_url) as client:
        first = client.responses.create(model=MODEL, input="Hi")
        second = client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
    assert second.output_text == "Two"


@pytest.mark.parametrize("stream", [False, True])
def test_completions(fake: FakeLMStudio, stream: bool) -> None:
    """The text as it is, markup and all; the usage with a stream; errors as errors."""
    fake.reply(" upon a <think>time")
    with OpenAI(base_url=fake.base_url, **FAST) as client:
        options: Any = {"model": MODEL, "prompt": ["Once"], "max_tokens": 20}
        if stream:
            chunks = list(client.completions.create(**options, stream=True))
            assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " upon a <think>time"
            assert chunks[-1].choices[0].finish_reason == "stop"
            assert chunks[-1].usage
        else:
            whole = client.completions.create(**options)
            assert whole.choices[0].text == " upon a <think>time"
            assert (whole.model_extra or {})["lmdeck"]["rules"] == ["single_input"]


@pytest.mark.parametrize("fault", ["server_error", "html", "refuse"])
def test_completions_fail_with_the_clients_exceptions(echo: FakeLMStudio, fault: str) -> None:
    if FAULTS[fault].closes_port:
        echo.close_port()
    else:
        echo.fail_always(fault)
    with OpenAI(base_url=echo.base_url, **FAST) as client, pytest.raises(openai.APIStatusError):
        client.completions.create(model=MODEL, prompt="Once")


def test_embeddings_are_packed_where_base64_was_asked_for(fake: FakeLMStudio) -> None:
    fake.embeds("a", [0.5, -0.25, 1.0]).embeds("b", [1.0, 2.0, 3.0])
    with OpenAI(base_url=fake.base_url) as client:
        default = client.embeddings.create(model=EMBEDDER, input=["a", "b"])
        numbers = client.embeddings.create(model=EMBEDDER, input="a", encoding_format="float")
        packed = client.embeddings.with_raw_response.create(model=EMBEDDER, input="a", encoding_format="base64")
    assert default.data[1].embedding == [1.0, 2.0, 3.0]
    assert numbers.data[0].embedding == [0.5, -0.25, 1.0]
    text = json.loads(packed.text)["data"][0]["embedding"]
    assert list(array("f", base64.b64decode(text))) == [0.5, -0.25, 1.0]
    assert packed.headers["x-lmdeck-rules"] == "base64_embeddings"
    assert last_asked(fake).body["encoding_format"] == "float"


def test_dimensions_that_the_server_ignores_are_refused(fake: FakeLMStudio) -> None:
    """Vectors of another length than requested are not handed on."""
    fake.at("/v1/embeddings").body({"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "model": "m"})
    with (
        OpenAI(base_url=fake.base_url, max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="2 dimensions"),
    ):
        client.embeddings.create(model=EMBEDDER, input="a", dimensions=2)


def test_token_ids_cannot_be_embedded(fake: FakeLMStudio) -> None:
    with OpenAI(base_url=fake.base_url) as client, pytest.raises(openai.BadRequestError, match="check_embedding_ctx"):
        client.embeddings.create(model=EMBEDDER, input=[[1, 2, 3]])


def test_too_few_vectors_are_an_error(fake: FakeLMStudio) -> None:
    fake.at("/v1/embeddings").body({"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "model": "m"})
    with (
        OpenAI(base_url=fake.base_url) as client,
        pytest.raises(openai.InternalServerError, match="1 embeddings for 2"),
    ):
        client.embeddings.create(model=EMBEDDER, input=["a", "b"])
