"""Schemas from signatures, registration, and the check of arguments."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

import lmdeck
from lmdeck import ConfigurationError, LMStudio, Problem, Tool, ToolArgumentsError, ToolCall, UnknownToolError, tool
from lmdeck.tools.result import read_result
from lmdeck.tools.validation import coerced_arguments, typed_arguments


class Unit(enum.Enum):
    C = "c"
    F = "f"


@dataclass
class Place:
    city: str
    zip: int | None = None


class Extra(TypedDict):
    note: str
    stars: NotRequired[int]


class Row(msgspec.Struct):
    cells: list[float]


class Model(pydantic.BaseModel):
    query: str
    limit: int = 3


class Node(msgspec.Struct):
    value: int
    next: Node | None = None


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(id="1", name=name, arguments=arguments)


def checked_arguments(made: Tool, of: ToolCall) -> tuple[dict[str, Any], list[Problem]]:
    """Return the arguments as a handler gets them, and the problems of coercion."""
    arguments, problems = coerced_arguments(made, of)
    return typed_arguments(made, of, arguments), problems


def kind_of(annotation: Any) -> dict[str, Any]:
    def f(x): ...

    f.__annotations__ = {"x": annotation}
    return tool(f).parameters["properties"]["x"]


KINDS: list[tuple[Any, dict[str, Any], Any, Any]] = [
    (str, {"type": "string"}, "a", "a"),
    (int, {"type": "integer"}, 5, 5),
    (float, {"type": "number"}, 5, 5.0),
    (bool, {"type": "boolean"}, True, True),
    (None, {"type": "null"}, None, None),
    (Literal["c", "f"], {"enum": ["c", "f"]}, "f", "f"),
    (Unit, {"enum": ["c", "f"]}, "f", Unit.F),
    (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),
    (list[int], {"type": "array", "items": {"type": "integer"}}, [1], [1]),
    (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ["a"], {"a"}),
    (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": 1}),
    (dt.date, {"type": "string", "format": "date"}, "2026-11-23", dt.date(2026, 11, 23)),
    (decimal.Decimal, {"type": "string", "format": "decimal"}, "1.50", decimal.Decimal("1.50")),
    (uuid.UUID, {"type": "string", "format": "uuid"}, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
    (pathlib.Path, {"type": "string", "format": "path"}, "/a/b", pathlib.Path("/a/b")),
    (
        Place,
        {
            "type": "object", "required": ["city"],
            "properties": {
                "city": {"type": "string"},
                "zip": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            },
        },
        {"city": "Rome"},
        Place("Rome"),
    ),
    (
        Extra,
        {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}, "stars": {"type": "integer"}}},
        {"note": "n"},
        {"note": "n"},
    ),
    (
        Model,
        {"type": "object", "required": ["query"],
         "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "default": 3}}},
        {"query": "q"},
        Model(query="q"),
    ),
    (Any, {}, {"anything": 1}, {"anything": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "schema", "given", "value"), KINDS, ids=lambda item: str(item)[:30])
def test_every_type_people_use_is_described_and_made(annotation: Any, schema: Any, given: Any, value: Any) -> None:
    assert kind_of(annotation) == schema

    def f(x): ...

    f.__annotations__ = {"x": annotation}
    arguments, problems = checked_arguments(tool(f), call("f", x=given))
    assert arguments == {"x": value}
    assert type(arguments["x"]) is type(value)
    assert problems == []


def test_a_tuple_and_a_type_that_contains_itself() -> None:
    assert kind_of(tuple[int, str])["prefixItems"] == [{"type": "integer"}, {"type": "string"}]

    @tool
    def walk(node: Node) -> None: ...

    assert "Node" in walk.parameters["$defs"]
    arguments, _ = checked_arguments(walk, call("walk", node={"value": 1, "next": {"value": 2}}))
    assert arguments["node"].next.value == 2


def google(city: str, unit: str = "c") -> None:
    """Tell the weather.

    It may rain.

    Args:
        city: Where to
            look.
        unit (str): Which scale.
    """


def numpy(city: str, unit: str = "c") -> None:
    """Tell the weather.

    It may rain.

    Parameters
    ----------
    city : str
        Where to look.
    unit : str
        Which scale.
    """


def sphinx(city: str, unit: str = "c") -> None:
    """Tell the weather.

    It may rain.

    :param city: Where to look.
    :param unit: Which scale.
    """


def annotated(
    city: Annotated[str, "Where to look."], unit: Annotated[str, pydantic.Field(description="Which scale.")] = "c"
) -> None:
    """Tell the weather.

    It may rain.
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx, annotated])
def test_descriptions_come_from_any_style(function: Any) -> None:
    made = tool(function)
    assert made.to_dict() == {
        "type": "function",
        "function": {
            "name": function.__name__,
            "description": "Tell the weather. It may rain.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where to look."},
                    "unit": {"type": "string", "description": "Which scale.", "default": "c"},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


def test_a_tool_stays_callable_and_binds_as_a_method() -> None:
    class Shop:
        def __init__(self, stock: int) -> None:
            self.stock = stock

        @tool
        def buy(self, count: int) -> int:
            """Buy some."""
            self.stock -= count
            return self.stock

    shop = Shop(5)
    bound = shop.buy
    assert list(bound.parameters["properties"]) == ["count"]
    assert bound(count=2) == 3
    assert shop.stock == 3
    bare = tool(shop.__class__(9).buy.handler)
    assert bare(count=1) == 8

    @tool
    async def later(x: int) -> int:
        return x

    assert later.is_async
    assert not bound.is_async


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda: tool(lambda x: x), "rewrite"),
        (lambda: tool(name="getWeather")(google), "'get_weather'"),
        (lambda: tool(name="get weather!")(google), "'get_weather'"),
        (lambda: tool(name="x" * 65)(google), "rewrite"),
        (lambda: tool(name="f")(lambda *args: args), "args"),
        (lambda: tool(name="f")(lambda x, /: x), "named|name that"),
        (lambda: kind_of(complex), "cannot be described"),
        (lambda: LMStudio().register_tool("f", handler=google, parameters={"city": "string"}), "not a schema"),
        (
            lambda: LMStudio().register_tool("f", handler=google, parameters={"a": {"type": "string"}}, required=["b"]),
            "requires 'b'",
        ),
    ],
)
def test_what_cannot_be_a_tool_says_why(define: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        define()


def test_a_hint_that_names_nothing_says_so() -> None:
    def f(x: Nowhere) -> None: ...  # noqa: F821

    with pytest.raises(ConfigurationError, match="Nowhere"):
        tool(f)


def test_the_short_form_and_the_full_schema_are_the_same() -> None:
    lm = LMStudio()
    short = lm.register_tool(
        "weather", handler=google, description="W", parameters={"city": {"type": "string"}, "unit": {"type": "string"}},
        required=["city"],
    )  # fmt: skip
    full = lm.register_tool(
        "weather_too", handler=google, description="W",
        parameters={"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
                    "required": ["city"]},
    )  # fmt: skip
    assert short.parameters == full.parameters
    assert lm.register_tool("from_signature", handler=google).parameters["required"] == ["city"]
    assert lm.register_tool("all_required", handler=google, parameters={"a": {"type": "string"}}).parameters[
        "required"
    ] == ["a"]
    odd = lm.register_tool(
        "odd", handler=google, parameters={"type": {"type": "string"}, "properties": {"type": "object"}}
    )
    assert list(odd.parameters["properties"]) == ["type", "properties"]


def test_names_are_taken_once_and_found_again() -> None:
    lm = LMStudio()

    @lm.tool
    def first(x: int) -> int:
        return x

    assert isinstance(first, Tool)
    with pytest.raises(ConfigurationError, match="already registered"):
        lm.register_tool("first", handler=google)
    for _ in range(2):  # a notebook's cell is run again

        @lm.tool(timeout=3)
        def again() -> None: ...

    assert [item.name for item in lm.tools] == ["first", "again"]
    chat = lm.chat().with_tools(["first", google, numpy, {"name": "plain"}])
    with pytest.raises(UnknownToolError, match="'nothing'"):
        chat.with_tools(["nothing"])
    with pytest.raises(ConfigurationError, match="Two tools"):
        chat.with_tools(["first", {"name": "first"}])


def test_the_facade_registers_with_the_default_client() -> None:
    made = lmdeck.register_tool("greet", handler=lambda name: f"Hi {name}", parameters={"name": {"type": "string"}})
    assert lmdeck.default_client().tools.get("greet") is made


@tool
def take(
    count: int = 0, ratio: float = 0.0, on: bool = False, place: Place | None = None, tags: list[str] = (),  # type: ignore[assignment]
    text: str = "", maybe: int | None = None,
) -> None:  # fmt: skip
    """Take anything."""


COERCED: list[tuple[str, Any, Any]] = [
    ("count", "5", 5), ("count", " 7 ", 7), ("count", "4.0", 4), ("ratio", "1.5", 1.5), ("on", "true", True),
    ("on", "False", False), ("place", '{"city": "Rome"}', Place("Rome")), ("tags", '["a", "b"]', ["a", "b"]),
    ("tags", "a", ["a"]), ("text", 5, "5"), ("maybe", "null", None), ("maybe", "2", 2),
    ("place", {"city": "R", "zip": "1"}, Place("R", 1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "value"), COERCED)
def test_what_loses_nothing_is_coerced_and_reported(name: str, given: Any, value: Any) -> None:
    arguments, problems = checked_arguments(take, call("take", **{name: given}))
    assert arguments[name] == value
    assert type(arguments[name]) is type(value)
    assert [problem.code for problem in problems] == ["coerced"]
    assert name in problems[0].detail


@pytest.mark.parametrize(
    ("name", "given"),
    [("count", "five"), ("count", 3.5), ("count", True), ("count", "3.5"), ("on", 1), ("on", "yes please"), ("place", "Rome"),
     ("place", {"town": "Rome"}), ("tags", 5), ("tags", [1, [2]]), ("count", None), ("unknown", 1), ("text", ["a"])],
)  # fmt: skip
def test_what_would_lose_something_is_a_fault(name: str, given: Any) -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        checked_arguments(take, call("take", **{name: given}))
    assert caught.value.errors
    assert name in caught.value.errors[0]


def test_every_fault_has_a_line() -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        checked_arguments(take, call("take", count="x", ratio="y", nothing=1))
    assert len(caught.value.errors) == 3
    assert "\n" not in "".join(caught.value.errors)


def test_a_broken_schema_is_the_developers_fault() -> None:
    broken = LMStudio().register_tool(
        "f", handler=google, parameters={"type": "object", "properties": {"a": {"type": 5}}}
    )
    with pytest.raises(ConfigurationError, match="not a JSON Schema"):
        checked_arguments(broken, call("f", a=1))


@pytest.mark.parametrize(
    ("value", "text"),
    [("plain", "plain"), (b"bytes", "bytes"), (b"\xff\x00", "/wA="), (None, "null"), (5, "5"),
     ("a\udcff", "a\ufffd"), ({"\ud83d": ["\udcff"]}, '{"\ufffd":["\ufffd"]}'), ({"a": [1]}, '{"a":[1]}'),
     (Place("Rome"), '{"city":"Rome","zip":null}'), (Row([1.0]), '{"cells":[1.0]}'),
     (Model(query="q"), '{"query":"q","limit":3}'),
     (dt.date(2026, 1, 2), '"2026-01-02"'), (Unit.C, '"c"'), (pathlib.PurePosixPath("/a"), '"/a"'),
     ([Unit.F, None], '["f",null]')],
)  # fmt: skip
def test_any_result_becomes_text(value: Any, text: str) -> None:
    assert read_result(value)[0] == text


def test_a_result_without_a_form_and_one_without_an_end() -> None:
    with pytest.raises(TypeError, match="object"):
        read_result(object())
    long = read_result("x" * (2 << 20))[0]
    assert len(long) < (1 << 20) + 200
    assert "truncated" in long
