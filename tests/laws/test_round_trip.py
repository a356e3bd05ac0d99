"""`parse(render(call)) == call`, whatever text the values hold."""

from __future__ import annotations

import os
import random
import re

import pytest

from laws.material import EXAMPLES, LITERALS, TOOLS, WRITERS, Call, cut
from lmdeck import ConfigurationError, StreamParser, parse, render

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long

SHAPES = (
    "{}",
    "{} b",
    "a {}",
    "a {} b",
    "a\n{}\nb",
    "\n{}\n",
    "{0}{0}",
    "a {0} b {0} c",
    "«{}»",
    '"{}"',
    "'{}'",
    "`{}`",
)
VALUES = int(os.environ.get("LMDECK_ROUND_TRIPS", "14"))
AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "gemma4": ('<|"|>',),
    "functiongemma": ("<escape>",),
}  # fmt: skip
"""Literals that a format has no way to write in a value: they end it, and what follows could be meant."""


OWN_TAG = re.compile(r"param|arg_|function=")
"""Tags of parameters: before some text, only what a model means tells whether they begin or end one."""


def hostile_values(dialect: str, rng: random.Random, count: int) -> list[str]:
    """Return texts that hold markers of all dialects, in some shape, or a whole call."""
    values = [rng.choice(SHAPES).format(rng.choice(LITERALS)) for _ in range(count)]
    values += [
        rng.choice(SHAPES).format(rng.choice(LITERALS) + rng.choice(("", " ", "\n")) + rng.choice(LITERALS))
        for _ in range(count // 2)
    ]
    values += [f"a {EXAMPLES[rng.choice(WRITERS)]} b" for _ in range(count // 8)]
    return [value for value in values if not any(literal in value for literal in AMBIGUOUS.get(dialect, ()))]


def wrong_round_trip(dialect: str, calls: list[Call], rng: random.Random) -> str | None:
    """Return how calls do not come back, None where they do: named, found out, whole and in pieces."""
    try:
        text = render(dialect, calls=calls)
    except ConfigurationError as error:
        return str(error)
    for name in (dialect,) if dialect == "mimo" else (dialect, "auto"):  # auto reads lines as Qwen writes them
        parser = StreamParser(TOOLS, name)
        for part in cut(text, rng):
            parser.feed(part)
        parser.finish()
        for parsed in (parse(text, TOOLS, name), parser.result):
            if [
                {"name": call.name, "arguments": call.arguments} for call in parsed.tool_calls
            ] != calls or parsed.content:
                return f"{name}: from {text!r} came {parsed}"
    return None


def judge(dialect: str, tried: list[tuple[str, list[Call]]], rng: random.Random) -> None:
    """Check that calls come back; of those whose values hold tags of the dialect's own parameters, nearly all."""
    own = [(value, calls) for value, calls in tried if OWN_TAG.search(value)]
    others = [(value, calls) for value, calls in tried if not OWN_TAG.search(value)]
    for _, calls in others:
        assert wrong_round_trip(dialect, calls, rng) is None
    wrong = [why for _, calls in own if (why := wrong_round_trip(dialect, calls, rng))]
    assert len(wrong) <= len(own) // 5 + 1, wrong


@pytest.mark.parametrize("dialect", WRITERS)
def test_values_may_hold_anything(dialect: str) -> None:
    rng = random.Random(f"values of {dialect}")
    tried: list[tuple[str, list[Call]]] = []
    for value in hostile_values(dialect, rng, VALUES):
        tried.append((value, [{"name": "save", "arguments": {"text": value}}]))
        both = [
            {"name": "save", "arguments": {"text": value, "count": 3}},
            {"name": "look", "arguments": {"place": value}},
        ]
        tried.append((value, both))
    judge(dialect, tried, rng)


@pytest.mark.parametrize("dialect", WRITERS)
def test_lists_and_objects_may_hold_anything(dialect: str) -> None:
    rng = random.Random(f"lists of {dialect}")
    arguments = [
        (value, {"tags": ["x", value], "more": {"a": value, "b": [1, None, True]}, "count": 1})
        for value in hostile_values(dialect, rng, VALUES // 2)
    ]
    judge(dialect, [(value, [{"name": "save", "arguments": given}]) for value, given in arguments], rng)
