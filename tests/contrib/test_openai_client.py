"""OpenAI's own client with lmdeck's transport: the same answers that `chat()` gives, and its own exceptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from asking import last_asked, nothing_left_behind
from lmdeck.contrib.openai import AsyncOpenAI, OpenAI, async_http_client, http_client
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.faults import FAULTS

MODEL = "qwen2.5-7b-instruct"
FAST: Any = {"retry_delay": 0.001, "first_token_timeout": 1.5, "timeout": 1.5, "retry_attempts": 2}
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
OTHER: Any = {"type": "function", "function": {"name": "other"}}
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


class Answer:
    """What a user of the client has in hand at the end."""

    def __init__(self) -> None:
        self.content = self.reasoning = ""
        self.calls: dict[int, list[str]] = {}
        self.finish_reason: str | None = None
        self.extra: dict[str, Any] = {}
        self.usage: Any = None

    def add(self, index: int, call: Any) -> None:
        entry = self.calls.setdefault(index, ["", "", ""])
        entry[0] = call.id or entry[0]
        entry[1] += call.function.name or ""
        entry[2] += call.function.arguments or ""

    def take(self, said: Any, reason: str | None) -> None:
        self.content += said.content or ""
        self.reasoning += (said.model_extra or {}).get("reasoning_content") or ""
        for place, call in enumerate(said.tool_calls or ()):
            self.add(getattr(call, "index", place), call)
        self.finish_reason = reason or self.finish_reason

    def note(self, chunk: Any) -> None:
        self.extra |= chunk.model_extra or {}
        self.usage = chunk.usage or self.usage

    @property
    def named(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for _, name, arguments in self.calls.values()]


Ask = Callable[..., Answer]


def ask_whole(url: str, **options: Any) -> Answer:
    answer = Answer()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=http_client(**FAST)) as client:
        whole = client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **options})
    answer.note(whole)
    answer.take(whole.choices[0].message, whole.choices[0].finish_reason)
    return answer


def ask_stream(url: str, **options: Any) -> Answer:
    answer = Answer()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=http_client(**FAST)) as client:
        for chunk in client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "stream": True, **options}):
            answer.note(chunk)
            for choice in chunk.choices:
                answer.take(choice.delta, choice.finish_reason)
    return answer


def ask_whole_async(url: str, **options: Any) -> Answer:
    async def ask() -> Answer:
        answer = Answer()
        http = async_http_client(**FAST)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", http_client=http) as client:
            whole = await client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **options})
        answer.note(whole)
        answer.take(whole.choices[0].message, whole.choices[0].finish_reason)
        return answer

    return asyncio.run(ask())


def ask_stream_async(url: str, **options: Any) -> Answer:
    async def ask() -> Answer:
        answer = Answer()
        http = async_http_client(**FAST)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", http_client=http) as client:
            stream = await client.chat.completions.create(
                **{"model": MODEL, "messages": HELLO, "stream": True, **options}
            )
            async for chunk in stream:
                answer.note(chunk)
                for choice in chunk.choices:
                    answer.take(choice.delta, choice.finish_reason)
        return answer

    return asyncio.run(ask())


WAYS = pytest.mark.parametrize("ask", [ask_whole, ask_stream, ask_whole_async, ask_stream_async])


@WAYS
def test_an_answer_without_faults_comes_as_it_was(fake: FakeLMStudio, ask: Ask) -> None:
    fake.reply("Hello <b>there</b>\n\n    indented", reasoning="A greeting.")
    answer = ask(fake.base_url)
    assert answer.content == "Hello <b>there</b>\n\n    indented"
    assert (answer.reasoning, answer.finish_reason, answer.calls) == ("A greeting.", "stop", {})
    assert answer.usage.completion_tokens > 0
    assert answer.extra["lmdeck"] == {"problems": [], "rules": []}


@WAYS
@pytest.mark.parametrize("dialect", ["native", "qwen3-coder-xml", "hermes-json", "mistral-v13", "gpt-oss-harmony"])
def test_calls_are_found_in_every_dialect(fake: FakeLMStudio, ask: Ask, dialect: str) -> None:
    fake.tool_call("get_weather", city="Paris", **({} if dialect == "native" else {"dialect": dialect}))
    answer = ask(fake.base_url, tools=[WEATHER])
    assert (answer.content, answer.named, answer.finish_reason) == ("", PARIS, "tool_calls")
    assert all(call[0] for call in answer.calls.values())


@WAYS
@pytest.mark.parametrize(
    "raw", ['{"city": "Paris",}', "{'city': 'Paris'}", '{"city": "Paris"', '"{\\"city\\": \\"Paris\\"}"']
)
def test_broken_arguments_are_mended(fake: FakeLMStudio, ask: Ask, raw: str) -> None:
    call = {"index": 0, "id": "", "type": "function", "function": {"name": "get_weather", "arguments": raw}}
    said = {"role": "assistant", "tool_calls": [call]}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL}
    if ask in (ask_stream, ask_stream_async):
        frames = [
            {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": said, "finish_reason": None}],
            },
            {
                **head,
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            },
        ]
        fake.frames(*frames)
    else:
        fake.body({**head, "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})
    answer = ask(fake.base_url, tools=[WEATHER])
    assert (answer.named, answer.finish_reason) == (PARIS, "tool_calls")
    assert answer.calls[0][0]


@WAYS
def test_what_the_client_sends_is_made_acceptable(fake: FakeLMStudio, ask: Ask) -> None:
    """Null content, an object as tool choice, json_object, a role and tools that LM Studio does not know."""
    fake.reply('{"a": 1}')
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    answer = ask(
        fake.base_url,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "21"},
        ],
        tools=[WEATHER, OTHER, {"type": "web_search"}],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        response_format={"type": "json_object"},
        extra_body={"top_a": 0.5},
    )
    assert answer.content == '{"a": 1}'
    body = last_asked(fake).body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][2]["content"] == ""
    assert (body["tool_choice"], len(body["tools"])) == ("required", 1)
    assert body["response_format"]["type"] == "json_schema"
    assert body["top_a"] == 0.5
    rules = {"developer_role", "null_content", "server_tools", "tool_choice", "json_object"}
    assert rules <= set(answer.extra["lmdeck"]["rules"])


def words(error: openai.APIError) -> str:
    """Return the message as it was sent: some versions of openai show the body of the error around it."""
    return str(error.body["message"]) if isinstance(error.body, dict) else error.message


@WAYS
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_survived_or_one_of_the_clients_own_exceptions(echo: FakeLMStudio, ask: Ask, fault: str) -> None:
    if FAULTS[fault].closes_port:
        echo.close_port()
    else:
        echo.fail_always(fault)
    if FAULTS[fault].expect == "error":
        with pytest.raises(openai.APIError) as caught:
            ask(echo.base_url, tools=[WEATHER])
        assert words(caught.value).endswith(".")
        assert getattr(caught.value, "status_code", 400) >= 400
        return
    answer = ask(echo.base_url, tools=[WEATHER])
    assert answer.finish_reason in {"stop", "tool_calls", "length"}
    assert answer.content or answer.calls


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@WAYS
@pytest.mark.parametrize(
    ("content", "reasoning", "problems"),
    [
        ("", 'I answer {"town": 1} or rather {"city": "Paris"}.', ["structured"]),
        ('Sure!\n```json\n{"city": "Paris"}\n```\nAnything else?', "", ["structured"]),
        ('\n {"city": "Paris"}', "Hm.", []),
    ],
)
def test_json_is_found_where_it_was_asked_for(
    fake: FakeLMStudio, ask: Ask, content: str, reasoning: str, problems: list[str]
) -> None:
    """It is found in the reasoning, in a fence and after white space, but only if it was requested."""
    fake.reply(content, reasoning=reasoning)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    answer = ask(fake.base_url, response_format=form)
    assert json.loads(answer.content) == {"city": "Paris"}
    assert [problem["code"] for problem in answer.extra["lmdeck"]["problems"]] == problems


@WAYS
def test_text_is_the_answer_where_there_is_no_json(fake: FakeLMStudio, ask: Ask) -> None:
    fake.reply("I cannot say.")
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert ask(fake.base_url, response_format=form).content == "I cannot say."


@WAYS
def test_the_address_may_have_any_form(fake: FakeLMStudio, ask: Ask) -> None:
    for tail in ("", "/", "/v1/", "/api/v1"):
        fake.reply("Hello")
        with openai.OpenAI(base_url=fake.base_url + tail, api_key="x", http_client=http_client()) as client:
            whole = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert whole.choices[0].message.content == "Hello"


def test_an_unknown_path_is_an_error_of_status_404(fake: FakeLMStudio) -> None:
    with OpenAI(base_url=fake.base_url) as client:
        with pytest.raises(openai.NotFoundError, match="Unexpected endpoint"):
            client.responses.retrieve("resp_1")
        with pytest.raises(openai.NotFoundError):
            client.files.list()
    fake.at("/v1/models").body({"error": "Unexpected endpoint or method. (GET /v1/models)"})
    with OpenAI(base_url=fake.base_url) as client, pytest.raises(openai.NotFoundError):
        client.models.list()


def test_a_model_list_passes_through(fake: FakeLMStudio) -> None:
    with OpenAI(base_url=fake.base_url) as client:
        assert MODEL in [model.id for model in client.models.list()]


def test_headers_report_what_was_changed(fake: FakeLMStudio) -> None:
    fake.reply("Hello")
    with OpenAI(base_url=fake.base_url) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "developer", "content": "Be brief."}, *HELLO]
        )
    assert raw.headers["x-lmdeck-problems"] == "1"
    assert raw.headers["x-lmdeck-rules"] == "developer_role"


def test_usage_comes_in_a_chunk_of_its_own_where_it_was_asked_for(fake: FakeLMStudio) -> None:
    fake.reply("Hello").reply("Hello")
    with OpenAI(base_url=fake.base_url) as client:
        options: Any = {"model": MODEL, "messages": HELLO, "stream": True}
        asked = list(client.chat.completions.create(**options, stream_options={"include_usage": True}))
        plain = list(client.chat.completions.create(**options))
    assert (asked[-1].choices, bool(asked[-1].usage)) == ([], True)
    assert (plain[-1].choices[0].finish_reason, bool(plain[-1].usage)) == ("stop", True)
    assert all(chunk.choices for chunk in plain)


def test_unknown_fields_pass_through(fake: FakeLMStudio) -> None:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "x_head": 1}
    frames = [
        {
            **head,
            "choices": [{"index": 0, "delta": {"content": "a", "x_delta": 2}, "x_choice": 3, "finish_reason": None}],
        },
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": {"predicted_ms": 4}},
    ]
    fake.frames(*frames)
    with OpenAI(base_url=fake.base_url) as client:
        first, *_, last = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
    assert (first.model_extra or {})["x_head"] == 1
    assert (first.choices[0].delta.model_extra or {})["x_delta"] == 2
    assert (last.model_extra or {})["timings"] == {"predicted_ms": 4}


def test_a_custom_tool_is_called_as_one(fake: FakeLMStudio) -> None:
    fake.tool_call("apply_patch", input="*** Begin Patch")
    with OpenAI(base_url=fake.base_url) as client:
        patch: Any = {"type": "custom", "custom": {"name": "apply_patch", "description": "Patch files."}}
        answer = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[patch])
    call: Any = (answer.choices[0].message.tool_calls or [None])[0]
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "apply_patch", "*** Begin Patch")


def test_an_async_factory_finds_the_server_by_settings(fake: FakeLMStudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMDECK_BASE_URL", fake.base_url)
    fake.reply("Hello")

    async def ask() -> Any:
        async with AsyncOpenAI(retry_attempts=1) as client:
            return await client.chat.completions.create(model=MODEL, messages=HELLO)

    assert asyncio.run(ask()).choices[0].message.content == "Hello"


def test_a_token_of_the_settings_comes_before_the_clients_key() -> None:
    with FakeLMStudio(seed=0, api_token="secret") as fake:
        fake.reply("Hello")
        http = http_client(api_token="secret")
        with openai.OpenAI(base_url=f"{fake.base_url}/v1", api_key="lm-studio", http_client=http) as client:
            assert client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content == "Hello"
        with (
            OpenAI(base_url=fake.base_url, api_key="wrong") as client,
            pytest.raises(openai.AuthenticationError, match="LM_API_TOKEN"),
        ):
            client.chat.completions.create(model=MODEL, messages=HELLO)
