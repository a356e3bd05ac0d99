"""Tools whose schema the server refuses: they are named, and sent once more without what it cannot compile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asking import WAYS, Way, alm, lm
from lmdeck import InvalidRequestError, Reply, ServerError, TemplateError
from lmdeck.adjustments import Adjustments
from lmdeck.protocol.refused_tools import simpler_request, simpler_schema
from loopback import SSE_HEAD, Loopback, Request, Step, event, hello, http_chunks, json_answer

PLAIN = {"type": "object", "properties": {"city": {"type": "string", "minimum": 0}}}
DATE = {"type": "string", "pattern": r"^\d{4}-\d{2}$", "description": "A month."}
DATED = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "month": DATE,
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 3},
    },
    "required": ["month"],
    "additionalProperties": False,
}
FREE = {"type": "object", "properties": {"text": {"type": "string", "pattern": r"\S", "format": "email"}}}


def tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WEATHER, BOOK, MAIL = tool("get_weather", PLAIN), tool("book", DATED), tool("send_mail", FREE)
UNCOMPILED = "samplers could not be set up: error parsing grammar, rule 7"


def refusing(words: str = UNCOMPILED, status: int = 400) -> Any:
    """Refuse every request whose tools have a pattern or a bound."""

    def answer(request: Request) -> list[Step]:
        if b"pattern" in request.body or b"maxLength" in request.body:
            return json_answer({"error": {"code": status, "message": words, "type": "invalid_request_error"}}, status)
        return hello(request)

    return answer


def ask(way: Way, answer: Any, *tools: Any, **settings: Any) -> tuple[Reply, list[Any]]:
    """Ask with tools; give the reply and the bodies that were sent."""

    async def ask_async(url: str) -> Reply:
        async with alm(url, **settings) as client:
            chat = client.chat().user("Hi").with_tools(tools)
            return await (chat.stream().until_done() if way.is_streamed else chat.send())

    with Loopback(answer) as server:
        if way.is_async:
            reply = asyncio.run(ask_async(server.url))
        else:
            with lm(server.url, **settings) as client:
                chat = client.chat().user("Hi").with_tools(tools)
                reply = chat.stream().until_done() if way.is_streamed else chat.send()
        return reply, [request.json for request in server.requests]


def refused(answer: Any, *tools: Any, **settings: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        ask(WAYS[0], answer, *tools, **settings)
    return caught.value


# --- once more ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_tools_that_cannot_be_compiled_are_sent_once_more(way: Way) -> None:
    """Without what cannot be compiled; which tools, and what they lost, is told."""
    reply, (first, second) = ask(way, refusing(), WEATHER, BOOK, MAIL)
    assert reply.content == "Hello."
    assert first["tools"] == [WEATHER, BOOK, MAIL]
    assert second == {
        **first,
        "tools": [
            WEATHER,
            tool(
                "book",
                {
                    **DATED,
                    "properties": {
                        "month": {"type": "string", "description": "A month."},
                        "tags": {"type": "array", "items": {"type": "string"}},
                    },
                },
            ),
            tool("send_mail", {"type": "object", "properties": {"text": {"type": "string"}}}),
        ],
    }
    assert [(problem.code, problem.rule) for problem in reply.problems] == [("adjusted", "simpler_schemas")] * 2
    book, mail = reply.problems
    assert "'book' was sent without maxItems, maxLength, pattern" in book.detail
    assert "'send_mail' was sent without format, pattern" in mail.detail


@pytest.mark.parametrize(
    "words",
    [
        "the engine answered 400: Failed to parse grammar",
        "Cannot initialise: failed to initialize samplers",
        "Automatic parser generation failed: JSON schema conversion failed: Unrecognized schema",
        "Unable to generate parser for this template. JSON schema conversion failed: Pattern must start with '^'",
        "the repetition exceeds what is sane, reduce the number of repetitions",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_the_compilers_phrasings(words: str, status: int) -> None:
    """Whatever the status."""
    reply, bodies = ask(WAYS[0], refusing(words, status), BOOK)
    assert (reply.content, len(bodies)) == ("Hello.", 2)


def test_an_error_in_a_stream_counts_too() -> None:
    """Before anything of an answer came."""

    def answer(request: Request) -> list[Step]:
        if b"pattern" not in request.body:
            return hello(request)
        return [
            SSE_HEAD,
            http_chunks(b"event: error\n" + event({"error": {"message": UNCOMPILED}, "message": UNCOMPILED})),
        ]

    reply, bodies = ask(WAYS[1], answer, BOOK)
    assert (reply.content, len(bodies)) == ("Hello.", 2)


def test_it_is_tried_once() -> None:
    """A request that is refused again is an error, and not about what was left out."""
    always = json_answer({"error": UNCOMPILED}, 400)
    with Loopback(always) as server, lm(server.url) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.chat().user("Hi").with_tools([BOOK]).send()
        assert len(server.requests) == 2
    assert caught.value.tools == []
    assert "too complex" in caught.value.hint


@pytest.mark.parametrize("tools", [[], [WEATHER]])
def test_nothing_to_leave_out_is_no_reason_to_ask_again(tools: list[Any]) -> None:
    """The refusal stands."""
    with Loopback(json_answer({"error": UNCOMPILED}, 400)) as server, lm(server.url) as client:
        with pytest.raises(InvalidRequestError):
            client.chat().user("Hi").with_tools(tools).send()
        assert len(server.requests) == 1


def test_other_refusals_are_not_tried_again() -> None:
    """Only a compiler's are."""
    for words, kind in (("no such field", InvalidRequestError), ("Error in the jinja template", TemplateError)):
        with Loopback(json_answer({"error": words}, 400)) as server, lm(server.url) as client:
            with pytest.raises(kind):
                client.chat().user("Hi").with_tools([BOOK]).send()
            assert len(server.requests) == 1
    with Loopback(json_answer({"error": "oh"}, 500)) as server, lm(server.url) as client, pytest.raises(ServerError):
        client.chat().user("Hi").with_tools([BOOK]).send()


def test_what_cannot_be_compiled_is_not_tried_again() -> None:
    """The next round of a run, or another chat, sends the simpler tool at once, and tells; another model is another engine."""
    with Loopback(refusing()) as server, lm(server.url) as client:
        chat = client.chat("m").user("Hi").with_tools([WEATHER, MAIL])
        replies = [chat.send() for _ in range(3)]
        other = client.chat("other").user("Hi").with_tools([MAIL, BOOK]).send()
        strict = chat.without_rules("simpler_schemas")
        with pytest.raises(InvalidRequestError):
            strict.send()
        sent = [b"pattern" in request.body for request in server.requests]
    assert [[problem.rule for problem in reply.problems] for reply in replies] == [["simpler_schemas"]] * 3
    assert len(other.problems) == 2
    assert sent == [True, False, False, False, True, False, True]


def test_calls_are_read_by_the_schema_that_was_offered() -> None:
    """What the engine was not told still says what type an argument is."""
    number = {"type": "object", "properties": {"zip": {"type": "string", "pattern": r"^\d+$"}}, "required": ["zip"]}

    def answer(request: Request) -> list[Step]:
        if b"pattern" in request.body:
            return json_answer({"error": UNCOMPILED}, 400)
        text = "<tool_call>\n<function=post>\n<parameter=zip>\n01234\n</parameter>\n</function>\n</tool_call>"
        return json_answer({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})

    reply, _ = ask(WAYS[0], answer, tool("post", number))
    assert reply.tool_calls[0].arguments == {"zip": "01234"}


def test_the_other_endpoints_do_it_too() -> None:
    """In their own forms of a tool."""
    response = {"id": "r", "status": "completed", "output": [{"type": "message", "content": "Hi"}]}
    message = {"type": "message", "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}

    def answer(request: Request) -> list[Step]:
        if b"pattern" in request.body:
            return json_answer({"type": "error", "error": {"type": "api_error", "message": UNCOMPILED}}, 500)
        return json_answer(response if request.path == "/v1/responses" else message)

    with Loopback(answer) as server, lm(server.url) as client:
        flat = {"type": "function", "name": "send_mail", "parameters": FREE}
        first = client.responses.create(input="Hi", tools=[flat])
        second = client.messages.create(messages=[{"role": "user", "content": "Hi"}], tools=[MAIL])
        sent = [request.json["tools"][0] for request in server.requests]
    for reply in (first, second):
        assert [problem.rule for problem in reply.problems] == ["simpler_schemas"]
    assert (sent[1]["parameters"], sent[3]["input_schema"]) == (
        simpler_schema(FREE, set()),
        simpler_schema(FREE, set()),
    )


# --- who it was -------------------------------------------------------------------------------------------------------------


def test_the_tool_that_can_be_meant_is_named() -> None:
    """With the rule off, or where nothing helps, the error says which tools a compiler stumbles over."""
    error = refused(refusing(), WEATHER, BOOK, without_rules=["simpler_schemas"])
    assert error.tools == ["book"]
    assert "'book'" in error.message
    assert "'book'" in error.hint
    error = refused(refusing(), BOOK, WEATHER, MAIL, without_rules=["simpler_schemas"])
    assert error.tools == ["book", "send_mail"]
    assert "one of the tools 'book', 'send_mail'" in error.message
    error = refused(
        refusing("Pattern must start with '^' (JSON schema conversion failed)"), BOOK, MAIL, without_rules="all"
    )
    assert error.tools == ["send_mail"]


@pytest.mark.parametrize(
    "body",
    [
        {
            "error": '[{"code": "invalid_type", "path": [1, "function", "parameters", "properties"], "message": "Missing"}]'
        },
        {"error": [{"code": "invalid_type", "path": [1, "function", "parameters"], "message": "Missing"}]},
        {"error": {"message": "Not a valid input", "param": "tools.1.type", "code": "custom"}},
        {"error": {"message": "bad value at tools[1].function.parameters"}},
        {"detail": [{"loc": ["body", "tools", 1, "function", "name"], "msg": "too long"}]},
        {"error": "The tool `book` has an odd schema"},
    ],
)
def test_a_tool_that_the_server_names_is_named(body: Any) -> None:
    """By its place or by its name, in every shape that refusals have."""
    error = refused(json_answer(body, 400), WEATHER, BOOK, MAIL)
    assert error.tools == ["book"]
    assert "Correct the schema of 'book'." in error.hint


@pytest.mark.parametrize(
    "body",
    [
        {"error": '[{"code": "invalid_type", "path": [1, "content"], "message": "Missing"}]'},
        {"error": {"message": "wrong", "param": "messages.1.content"}},
        {"error": {"message": "wrong", "param": "tools.9.type"}},
        {"error": "The field 'book' is not known"},
        {"error": "The tool 'other' is not known"},
    ],
)
def test_nobody_is_blamed_for_another_s_fault(body: Any) -> None:
    """A place in another list, or a name that is no tool's, names none."""
    error = refused(json_answer(body, 400), WEATHER, BOOK)
    assert error.tools == []
    assert "tool '" not in error.message or "'other'" in error.message


# --- schemas ---------------------------------------------------------------------------------------------------------------


def test_what_stays_of_a_schema() -> None:
    """Types, properties, items, alternatives and enumerations; what leads nowhere allows anything."""
    schema = {
        "type": "object",
        "$defs": {"A": {"type": "string"}},
        "properties": {
            "a": {"$ref": "#/$defs/A", "description": "One."},
            "b": {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1}]},
            "c": {"enum": [1, 2], "default": 1},
            "d": {"type": "array", "prefixItems": [{}], "items": True},
            "pattern": {"type": "string"},
            "e": True,
        },
        "additionalProperties": {"type": "string"},
        "if": {},
    }
    dropped: set[str] = set()
    assert simpler_schema(schema, dropped) == {
        "type": "object",
        "properties": {
            "a": {"description": "One."},
            "b": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "c": {"enum": [1, 2], "default": 1},
            "d": {"type": "array"},
            "pattern": {"type": "string"},
            "e": True,
        },
    }
    assert dropped == {"$ref", "minLength", "prefixItems", "items", "additionalProperties", "if"}


def test_a_schema_without_end_is_cut() -> None:
    """However deep it is."""
    deep: dict[str, Any] = {"type": "string", "pattern": "x"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    dropped: set[str] = set()
    simpler_schema(deep, dropped)
    assert dropped == {"deep nesting"}
    assert simpler_request({"tools": [None, 5, {"function": None}, {"name": "a"}]}, Adjustments()) is None
