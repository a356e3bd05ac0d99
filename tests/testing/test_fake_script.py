"""The fake's script, through lmdeck's own clients and over real HTTP."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

import msgspec
import pytest

from lmdeck import ConfigurationError, InvalidRequestError, LMStudioError, ServerError
from lmdeck._parsing.dialects import REGISTRY
from lmdeck.testing import Answer, FakeLMStudio

WRITING = sorted(name for name, dialect in REGISTRY.items() if dialect.writes is not None)


def get_weather(city: str, days: int = 1) -> str:
    """Tell the weather in a city."""
    return f"sun over {city} for {days}"


def test_it_is_ready_when_it_has_started() -> None:
    with FakeLMStudio() as fake:
        assert fake.base_url.startswith("http://127.0.0.1:")
        assert fake.client(retry_attempts=1).health().reachable


def test_answers_come_in_the_order_in_which_they_were_scripted() -> None:
    with FakeLMStudio() as fake:
        fake.reply("one").reply("two", reasoning="why not")
        chat = fake.client().chat()
        assert chat.user("a").send().content == "one"
        second = chat.user("b").send()
        assert (second.content, second.reasoning) == ("two", "why not")
        fake.assert_exhausted()


def test_a_test_waits_for_the_model_to_begin_and_to_stop() -> None:
    with FakeLMStudio() as fake:
        fake.reply("la " * 1000, tokens_per_second=50)
        with fake.client().chat().user("Sing").stream() as stream:
            next(iter(stream))
            fake.wait_until_busy()
            assert fake.in_progress == 1
            with pytest.raises(AssertionError, match=r"(?s)After 0.01 s an answer is still.*'Sing'"):
                fake.wait_until_idle(0.01)
        fake.wait_until_idle()
        with pytest.raises(AssertionError, match="no answer was started"):
            fake.wait_until_busy(0.01)


def test_reasoning_goes_before_what_is_scripted_next() -> None:
    with FakeLMStudio() as fake:
        fake.reasoning("Let me ").reasoning("see.").tool_call("get_weather", city="Paris")
        reply = fake.client().chat().user("a").with_tools([get_weather]).send()
    assert reply.reasoning == "Let me see."
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize("dialect", WRITING)
def test_every_dialect_leaks_a_call_that_lmdeck_finds(dialect: str) -> None:
    with FakeLMStudio(seed=len(dialect)) as fake:
        fake.tool_call("get_weather", city="Zürich", days=3, dialect=dialect)
        chat = fake.client().chat().user("a").with_tools([get_weather])
        with chat.stream() as stream:
            assert "".join(chunk.content for chunk in stream).strip() == ""
        (call,) = stream.reply.tool_calls
        assert (call.name, call.arguments) == ("get_weather", {"city": "Zürich", "days": 3})


def test_reasoning_in_a_dialect_is_in_the_text() -> None:
    with FakeLMStudio() as fake:
        fake.reply("Yes.", reasoning="Is it so?", dialect="hermes-json")
        reply = fake.client().chat().user("a").send()
        assert (reply.reasoning, reply.content) == ("Is it so?", "Yes.")


def test_rules_go_before_the_queue_and_repeat_their_last_answer() -> None:
    with FakeLMStudio() as fake:
        fake.reply("from the queue")
        fake.when(lambda request: "weather" in request.last_user).reply("rain").reply("sun")
        ask = fake.client().chat().user
        assert [ask("weather?").send().content for _ in range(3)] == ["rain", "sun", "sun"]
        assert ask("time?").send().content == "from the queue"


def test_an_unexpected_request_fails_the_test_and_says_which() -> None:
    with pytest.raises(AssertionError, match=r"had no scripted answer, the first of them: POST .*'What now\?'"):  # noqa: PT012, SIM117  # the end of the block is what is tested
        with FakeLMStudio() as fake:
            with pytest.raises(ServerError, match="no answer left"):
                fake.client(retry_attempts=1).chat().user("What now?").send()


def test_without_strictness_it_echoes_the_prompt() -> None:
    with FakeLMStudio(strict=False) as fake:
        assert fake.client().chat().user("What now?").send().content == "You said: What now?"


def test_json_and_schemas() -> None:
    class Person(msgspec.Struct):
        name: str
        age: int
        tags: list[str]

    with FakeLMStudio() as fake:
        fake.json({"name": "Ada", "age": 36, "tags": []}).from_schema()
        chat = fake.client().chat().user("Who?")
        assert chat.parse(Person) == Person("Ada", 36, [])
        assert isinstance(chat.parse(Person), Person)
        fake.from_schema()
        reply = chat.with_tools([get_weather]).with_tool_choice("required").send()
        assert [call.name for call in reply.tool_calls] == ["get_weather"]
        assert reply.tool_calls[0].arguments.keys() >= {"city"}


def test_an_agent_runs_against_it() -> None:
    with FakeLMStudio() as fake:
        fake.tool_calls([("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome", "days": 2})]).reply(
            "Sun."
        )
        assert fake.client().chat().user("Weather?").with_tools([get_weather]).run().content == "Sun."
        assert fake.assert_tool_called("get_weather", city="Rome", days=2).result == "sun over Rome for 2"
        fake.assert_tool_called("get_weather", city="Paris", result="sun over Paris for 1")
        with pytest.raises(AssertionError, match=r'(?s)Calls that were:.*get_weather\(city=\'Paris\'\).*\+  "city"'):
            fake.assert_tool_called("get_weather", city="Oslo")


def test_broken_arguments_are_sent_as_they_are() -> None:
    with FakeLMStudio() as fake:
        fake.tool_calls([("get_weather", '{"city": "Paris",}')])
        reply = fake.client().chat().user("a").with_tools([get_weather]).send()
        assert reply.tool_calls[0].arguments == {"city": "Paris"}
        assert [problem.code for problem in reply.problems] == ["repaired"]


def test_refusals_have_the_form_that_was_asked_for() -> None:
    with FakeLMStudio() as fake:
        fake.error(503, "busy").error(418, body={"error": {"message": "I am a teapot", "code": "teapot"}})
        client = fake.client(retry_attempts=1)
        with pytest.raises(ServerError, match="busy"):
            client.chat().user("a").send()
        with pytest.raises(LMStudioError, match="teapot") as caught:
            client.chat().user("a").send()
        assert getattr(caught.value, "status", None) == 418


def test_requests_are_typed_whichever_endpoint_they_went_to() -> None:
    with FakeLMStudio(strict=False, api_token="secret") as fake:
        lm = fake.client()
        lm.chat("qwen2.5-7b-instruct").with_system("Be brief.").user("chat").with_tools([get_weather]).send()
        lm.conversation("qwen2.5-7b-instruct", system_prompt="Be brief.").send("conversation")
        lm.responses.create(model="qwen2.5-7b-instruct", instructions="Be brief.", input="responses")
        lm.messages.create(
            model="qwen2.5-7b-instruct",
            system="Be brief.",
            max_tokens=9,
            messages=[{"role": "user", "content": "messages"}],
        )
        asked = [request for request in fake.requests if request.method == "POST"]
        assert [request.last_user for request in asked] == ["chat", "conversation", "responses", "messages"]
        assert {request.system for request in asked} == {"Be brief."}
        assert asked[0].tools == ["get_weather"]
        assert "secret" not in repr(fake.requests)
        fake.assert_call_count(4)
        fake.assert_call_count(1, path="/v1/messages")


def test_assertions_show_what_was_sent_instead() -> None:
    with FakeLMStudio(strict=False) as fake:
        fake.assert_nothing_sent()
        fake.client().chat().user("Hello there").with_options(temperature=0.5).send()
        fake.assert_sent(lambda request: "Hello" in request.last_user, times=1)
        fake.assert_sent(body={"temperature": 0.5}, path="/v1/chat/completions")
        with pytest.raises(
            AssertionError, match=r"(?s)found 0\..*'Hello there'.*-  \"temperature\": 0\.7.*\+  \"temperature\": 0\.5"
        ):
            fake.assert_sent(body={"temperature": 0.7})
        with pytest.raises(AssertionError, match="Expected 2 request"):
            fake.assert_call_count(2)
        with pytest.raises(AssertionError, match="found 1"):
            fake.assert_nothing_sent()
        fake.reply("never asked for")
        with pytest.raises(AssertionError, match="1 scripted answer"):
            fake.assert_exhausted()
        fake.reset()
        fake.assert_exhausted()


def test_the_same_seed_cuts_alike_and_another_does_not() -> None:
    def pieces(seed: int) -> list[str]:
        with FakeLMStudio(seed=seed) as fake:
            fake.reply("The quick brown fox jumps over the lazy dog, and so on, and so on.")
            with fake.client().chat().user("a").stream() as stream:
                return [chunk.content for chunk in stream if chunk.content]

    assert pieces(1) == pieces(1) != pieces(2)


def test_pace_is_kept() -> None:
    with FakeLMStudio(tokens_per_second=100, time_to_first_token=0.1) as fake:
        fake.reply("one two three four five six seven")
        with fake.client().chat().user("a").stream() as stream:
            stream.until_done()
        measured = stream.reply.stats.measured
        assert measured.time_to_first_token is not None
        assert measured.generation_time is not None
        assert measured.time_to_first_token >= 0.1
        assert measured.generation_time >= 0.05


def test_wrong_scripts_are_refused_where_they_are_written() -> None:
    with FakeLMStudio() as fake:
        with pytest.raises(ConfigurationError, match="no fault 'explode'"):
            fake.fail("explode")
        with pytest.raises(ConfigurationError, match="no option 'after'"):
            fake.fail("reset", after=3)
        fake.tool_call("f", dialect="klingon")
        with pytest.raises(LMStudioError):
            fake.client(retry_attempts=1).chat().user("a").send()
    with pytest.raises(RuntimeError, match="not running"):
        _ = FakeLMStudio().base_url


def test_it_validates_as_lm_studio_does_and_keeps_the_script_for_good_requests() -> None:
    import http.client
    from urllib.parse import urlsplit

    with FakeLMStudio() as fake:
        fake.reply("kept")
        connection = http.client.HTTPConnection(str(urlsplit(fake.base_url).netloc))
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": "a"}],
            "response_format": {"type": "json_object"},
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 400
        assert "json_schema" in json.loads(answer.read())["error"]
        connection.close()
        with pytest.raises(InvalidRequestError, match="'temperature'"):
            fake.client().chat().user("a").with_options(temperature=-1).send()
        assert fake.client().chat().user("a").send().content == "kept"


def test_answers_made_by_hand() -> None:
    with FakeLMStudio() as fake:
        fake.answer(
            Answer(content="cut off he", stop_reason="contextLengthReached", prompt_tokens=4000, completion_tokens=96)
        )
        reply = fake.client().chat().user("a").send()
        assert reply.finish_reason == "length"
        assert reply.usage
        assert reply.usage.total_tokens == 4096


async def test_it_serves_async_clients_and_is_an_async_context_manager() -> None:
    async with FakeLMStudio() as fake:
        fake.reply("Hello").tool_call("get_weather", city="Paris").reply("Sun.")
        async with fake.async_client() as alm:
            assert (await alm.chat().user("Hi").send()).content == "Hello"
            assert (await alm.chat().user("Hi").with_tools([get_weather]).run()).content == "Sun."
        fake.assert_tool_called("get_weather", city="Paris")


def test_the_application_itself_can_be_called_without_a_socket() -> None:
    from starlette.testclient import TestClient

    fake = FakeLMStudio()
    fake.reply("Hello").fail("reset_at_once")
    client = TestClient(fake.app)
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    assert client.post("/v1/chat/completions", json=asked).json()["choices"][0]["message"]["content"] == "Hello"
    with pytest.raises(ConnectionResetError):
        client.post("/v1/chat/completions", json=asked)


def test_a_client_that_leaves_a_long_answer_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is written to the connection that is gone, and the next request is answered."""
    fake = FakeLMStudio()
    fake.reply("word " * 200_000).reply("Hello")
    body = b'{"model": "qwen2.5-7b-instruct", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with fake, fake.client() as lm:
        with socket.create_connection(("127.0.0.1", int(fake.base_url.rpartition(":")[2]))) as client:
            client.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            assert client.recv(100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert lm.chat("qwen2.5-7b-instruct").user("Hi").send().content == "Hello"
    assert "socket.send()" not in caplog.text
