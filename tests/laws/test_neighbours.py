"""An unoffered, broken or repeated call in a block changes none of the others."""

from __future__ import annotations

import pytest

from laws.material import LOOK, SAVE, TOOLS, WRITERS, Call
from lmdeck import parse, render

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long

NOPE: Call = {"name": "nope", "arguments": {"text": "hello there", "count": 3}}
"""A tool that was not offered."""
BROKEN: Call = {"name": "ping", "arguments": {"text": "BROKEN"}}
"""A call whose value is replaced by text that nothing can read."""
UNREADABLE = ("<>", '{"', "[", "]", "{", "}", "nul", "@@@")
"""Text that no format has in this place. (A quote that nothing closes is not among it: what follows may be its text.)"""


def orders(bad: Call) -> list[list[Call]]:
    return [
        [bad, SAVE],
        [SAVE, bad],
        [SAVE, bad, LOOK],
        [bad, SAVE, LOOK],
        [SAVE, LOOK, bad],
        [bad, SAVE, bad, LOOK, bad],
    ]


def others(text: str, dialect: str, bad: str) -> list[Call]:
    return [
        {"name": call.name, "arguments": call.arguments}
        for call in parse(text, TOOLS, dialect).tool_calls
        if call.name != bad
    ]


@pytest.mark.parametrize("name", ["named", "auto"])
@pytest.mark.parametrize("dialect", WRITERS)
def test_an_unoffered_call_changes_no_other(dialect: str, name: str) -> None:
    for calls in orders(NOPE):
        text = render(dialect, calls=calls)
        expected = [call for call in calls if call is not NOPE]
        assert others(text, dialect if name == "named" else "auto", "nope") == expected, text


@pytest.mark.parametrize("name", ["named", "auto"])
@pytest.mark.parametrize("dialect", WRITERS)
def test_a_broken_call_changes_no_other(dialect: str, name: str) -> None:
    for calls in orders(BROKEN):
        for instead in UNREADABLE:
            rendered = render(dialect, calls=calls)
            text = rendered.replace('"BROKEN"', instead).replace("'BROKEN'", instead).replace("BROKEN", instead)
            expected = [call for call in calls if call is not BROKEN]
            assert others(text, dialect if name == "named" else "auto", "ping") == expected, text


@pytest.mark.parametrize("name", ["named", "auto"])
@pytest.mark.parametrize("dialect", WRITERS)
def test_a_repeated_call_changes_no_other(dialect: str, name: str) -> None:
    """A model may well want the same twice: what it says again is made again."""
    calls = [SAVE, SAVE, LOOK, SAVE]
    text = render(dialect, calls=calls)
    assert others(text, dialect if name == "named" else "auto", "") == calls, text
