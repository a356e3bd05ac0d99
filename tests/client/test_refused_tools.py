"""Tools whose schema the server refuses: they are named, and sent once more without what it cannot compile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asking import WAYS, Way, alm, lm
from lmdeck import InvalidRequestError, Reply, ServerError, TemplateError
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._plans.tool_schema_fallback import simplified_schema, with_simplified_schemas
from lmdeck.testing import FakeLMStudio, SentRequest

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
CHAT = "/v1/chat/completions"
UNCOMPILED = "samplers could not be set up: error parsing grammar, rule 7"


def is_hard(request: SentRequest) -> bool:
    """Return whether the tools of a request have a pattern or a bound."""
    return "'pattern'" in str(request.body) or "'maxLength'" in str(request.body)


def refuse(fake: FakeLMStudio, words: str = UNCOMPILED, status: int = 400) -> None:
    """Refuse every request whose tools have a pattern or a bound, and answer the others."""
    error = {"code": status, "message": words, "type": "invalid_request_error"}
    fake.when(is_hard).body({"error": error}, status=status)
    fake.when(lambda _: True).reply("Hello.")


def ask(fake: FakeLMStudio, way: Way, *tools: Any, **settings: Any) -> tuple[Reply, list[Any]]:
    """Ask with tools; give the reply and the bodies that were sent."""

    async def ask_async(url: str) -> Reply:
        async with alm(url, **settings) as client:
            chat = client.chat().user("Hi").with_tools(tools)
            return await (chat.stream().until_done() if way.is_streamed else chat.send())

    if way.is_async:
        reply = asyncio.run(ask_async(fake.base_url))
    else:
        with lm(fake.base_url, **settings) as client:
            chat = client.chat().user("Hi").with_tools(tools)
            reply = chat.stream().until_done() if way.is_streamed else chat.send()
    return reply, [request.body for request in fake.requests]


def refused(fake: FakeLMStudio, *tools: Any, **settings: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        ask(fake, WAYS[0], *tools, **settings)
    return caught.value


# --- once more ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_tools_that_cannot_be_compiled_are_sent_once_more(fake: FakeLMStudio, way: Way) -> None:
    """The keywords that cannot be compiled are left out, and the reply lists them."""
    refuse(fake)
    reply, (first, second) = ask(fake, way, WEATHER, BOOK, MAIL)
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
def test_the_compilers_phrasings(fake: FakeLMStudio, words: str, status: int) -> None:
    """Each of the compiler's messages is recognised, whatever the status."""
    refuse(fake, words, status)
    reply, bodies = ask(fake, WAYS[0], BOOK)
    assert (reply.content, len(bodies)) == ("Hello.", 2)


def test_an_error_in_a_stream_counts_too(fake: FakeLMStudio) -> None:
    """An error before the first part of an answer is handled in the same way."""

    fake.when(is_hard).fail("grammar_error")
    fake.reply("Hello.")
    reply, bodies = ask(fake, WAYS[1], BOOK)
    assert (reply.content, len(bodies)) == ("Hello.", 2)


def test_it_is_tried_once(fake: FakeLMStudio) -> None:
    """A request that is refused again is an error, and not about what was left out."""
    fake.at(CHAT).body({"error": UNCOMPILED}, status=400)
    with lm(fake.base_url) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.chat().user("Hi").with_tools([BOOK]).send()
        assert len(fake.requests) == 2
    assert caught.value.tools == []
    assert "too complex" in caught.value.hint


@pytest.mark.parametrize("tools", [[], [WEATHER]])
def test_nothing_to_leave_out_is_no_reason_to_ask_again(fake: FakeLMStudio, tools: list[Any]) -> None:
    """The refusal stands."""
    fake.body({"error": UNCOMPILED}, status=400)
    with lm(fake.base_url) as client:
        with pytest.raises(InvalidRequestError):
            client.chat().user("Hi").with_tools(tools).send()
        assert len(fake.requests) == 1


def test_other_refusals_are_not_tried_again(fake: FakeLMStudio) -> None:
    """Only a compiler's refusals lead to a second request."""
    for words, kind in (("no such field", InvalidRequestError), ("Error in the jinja template", TemplateError)):
        fake.body({"error": words}, status=400)
        with lm(fake.base_url) as client:
            with pytest.raises(kind):
                client.chat().user("Hi").with_tools([BOOK]).send()
            fake.assert_exhausted()
    fake.body({"error": "oh"}, status=500)
    with lm(fake.base_url) as client, pytest.raises(ServerError):
        client.chat().user("Hi").with_tools([BOOK]).send()


def test_what_cannot_be_compiled_is_not_tried_again(fake: FakeLMStudio) -> None:
    """The next round of a run, or another chat, sends the simpler tool at once, and tells; another model is another engine."""
    fake.add_model("other")
    refuse(fake)
    with lm(fake.base_url) as client:
        chat = client.chat("m").user("Hi").with_tools([WEATHER, MAIL])
        replies = [chat.send() for _ in range(3)]
        other = client.chat("other").user("Hi").with_tools([MAIL, BOOK]).send()
        strict = chat.without_rules("simpler_schemas")
        with pytest.raises(InvalidRequestError):
            strict.send()
        sent = ["pattern" in str(request.body) for request in fake.requests if request.wants_answer]
    assert [[problem.rule for problem in reply.problems] for reply in replies] == [["simpler_schemas"]] * 3
    assert len(other.problems) == 2
    assert sent == [True, False, False, False, True, False, True]


def test_calls_are_read_by_the_schema_that_was_offered(fake: FakeLMStudio) -> None:
    """What the engine was not told still says what type an argument is."""
    number = {"type": "object", "properties": {"zip": {"type": "string", "pattern": r"^\d+$"}}, "required": ["zip"]}

    fake.when(is_hard).body({"error": UNCOMPILED}, status=400)
    fake.reply("<tool_call>\n<function=post>\n<parameter=zip>\n01234\n</parameter>\n</function>\n</tool_call>")
    reply, _ = ask(fake, WAYS[0], tool("post", number))
    assert reply.tool_calls[0].arguments == {"zip": "01234"}


def test_the_other_endpoints_do_it_too(fake: FakeLMStudio) -> None:
    """The other endpoints simplify schemas in their own forms of a tool."""
    error = {"type": "error", "error": {"type": "api_error", "message": UNCOMPILED}}
    fake.when(is_hard).body(error, status=500)
    fake.when(lambda _: True).reply("Hi")
    with lm(fake.base_url) as client:
        flat = {"type": "function", "name": "send_mail", "parameters": FREE}
        first = client.responses.create(input="Hi", tools=[flat])
        second = client.messages.create(messages=[{"role": "user", "content": "Hi"}], tools=[MAIL])
        sent = [request.body["tools"][0] for request in fake.requests]
    for reply in (first, second):
        assert [problem.rule for problem in reply.problems] == ["simpler_schemas"]
    assert (sent[1]["parameters"], sent[3]["input_schema"]) == (
        simplified_schema(FREE, set()),
        simplified_schema(FREE, set()),
    )


# --- who it was -------------------------------------------------------------------------------------------------------------


def test_the_tool_that_can_be_meant_is_named(fake: FakeLMStudio) -> None:
    """The error names the tools that a compiler cannot read if the rule is off or does not help."""
    refuse(fake)
    error = refused(fake, WEATHER, BOOK, without_rules=["simpler_schemas"])
    assert error.tools == ["book"]
    assert "'book'" in error.message
    assert "'book'" in error.hint
    error = refused(fake, BOOK, WEATHER, MAIL, without_rules=["simpler_schemas"])
    assert error.tools == ["book", "send_mail"]
    assert "one of the tools 'book', 'send_mail'" in error.message
    fake.reset()
    refuse(fake, "Pattern must start with '^' (JSON schema conversion failed)")
    error = refused(fake, BOOK, MAIL, without_rules="all")
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
def test_a_tool_that_the_server_names_is_named(fake: FakeLMStudio, body: Any) -> None:
    """The server may name it by position or by name, in every format of a refusal."""
    fake.body(body, status=400)
    error = refused(fake, WEATHER, BOOK, MAIL)
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
def test_nobody_is_blamed_for_another_s_fault(fake: FakeLMStudio, body: Any) -> None:
    """A place in another list, or a name that is no tool's, names none."""
    fake.body(body, status=400)
    error = refused(fake, WEATHER, BOOK)
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
    assert simplified_schema(schema, dropped) == {
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
    """Simplifying a schema ends, however deep it is."""
    deep: dict[str, Any] = {"type": "string", "pattern": "x"}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    dropped: set[str] = set()
    simplified_schema(deep, dropped)
    assert dropped == {"deep nesting"}
    assert (
        with_simplified_schemas({"tools": [None, 5, {"function": None}, {"name": "a"}]}, CompatibilityFixes()) is None
    )
