"""JSON in an answer, whole and as far as it has come."""

from __future__ import annotations

import json

import pytest

from lmdeck._parsing.structured_output import NOTHING, json_values, partial_value

WHOLE = {"name": 'Ro"m\\e', "people": 28, "rivers": ["Ti{ber", {"a": None}, []], "ok": True}


def within(part: object, whole: object) -> bool:
    """Return whether a value may still become another: nothing in it is wrong."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(within(*pair) for pair in zip(part, whole, strict=False))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, int) and isinstance(whole, int):
        return str(whole).startswith(str(part))
    return part == whole or part == str(part)  # a word that is still being written


@pytest.mark.parametrize("before", ["", "Here: ", "```json\n"])
def test_every_beginning_gives_what_has_come(before: str) -> None:
    text = json.dumps(WHOLE)
    given = [partial_value(before + text[:end]) for end in range(len(text) + 1)]
    assert given[0] is NOTHING
    assert all(within(value, WHOLE) for value in given[1:])
    assert given[-1] == WHOLE
    sizes = [len(json.dumps(value)) for value in given[1:]]
    assert len(set(sizes)) > 20


@pytest.mark.parametrize(
    ("text", "first"),
    [("", None), ("no json", ("no json", "read as text")), ("5", (5, "")), ("null", (None, "")), ('"words"', ("words", "")),
     ('{"a": 1} and {"b": 2}', ({"a": 1}, "extracted from prose")),
     ('{"a": NaN}', ({"a": None}, "repaired: NaN instead of a JSON value")),
     ('Here:\n```json\n{"a": 1}\n```', ({"a": 1}, "extracted from a code fence")),
     ("```\n{a: 1}\n```", ({"a": 1}, "extracted from a code fence, repaired: an unquoted key"))],
)  # fmt: skip
def test_the_likeliest_value_comes_first(text: str, first: object) -> None:
    assert next(json_values(text), None) == first


def test_a_text_of_brackets_costs_no_more_than_its_length() -> None:
    """A handful of places is tried, not every one."""
    assert len(list(json_values("{" * 100_000))) <= 25


@pytest.mark.parametrize("inside", ["no json", '{"a" 1', "[1, 1e400]"])
def test_a_fence_without_a_value_is_text(inside: str) -> None:
    text = f"```json\n{inside}\n```"
    assert list(json_values(text)) == [(text, "read as text")]


def test_a_number_that_is_too_large_is_no_part_of_a_value() -> None:
    assert partial_value("[1, 1e400") is NOTHING


def test_of_one_value_each_way_to_read_it_is_tried() -> None:
    text = 'Here:\n```json\n{"a": 1}\n```'
    assert [how for _, how in json_values(text)] == [
        "extracted from a code fence",
        "extracted from prose",
        "read as text",
    ]
