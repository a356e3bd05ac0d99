"""One damaged token of a call gives the call, or its text with a problem; never another call."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from laws.material import LOOK, SAVE, TAG, TOOLS, WRITERS, Call, write
from lmdeck import ParsedMessage, parse, render
from lmdeck._parsing.dialects import REGISTRY

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long


def damaged(text: str) -> Iterator[tuple[str, str]]:
    """Drop, double and swap each structural token of a text, one at a time."""
    found = list(TAG.finditer(text))
    for token in found:
        yield f"without {token.group()!r}", text[: token.start()] + text[token.end() :]
        yield f"with {token.group()!r} twice", text[: token.end()] + text[token.start() :]
    for token, following in pairwise(found):
        between = text[token.end() : following.start()]
        yield (
            f"with {token.group()!r} and {following.group()!r} swapped",
            text[: token.start()] + following.group() + between + token.group() + text[following.end() :],
        )


def wrong_outcome(parsed: ParsedMessage, calls: list[Call], text: str, dialect: str) -> str | None:
    """Return what is wrong with the outcome of a damaged text, None where it is allowed.

    A text that is exactly how the dialect writes other calls means those. Where no begin of a call is left, nothing says that
    there was one, and its text comes back without a problem.
    """
    got = [{"name": call.name, "arguments": call.arguments} for call in parsed.tool_calls]
    wanted = iter(calls)
    if not all(any(_same(call, other) for other in wanted) for call in got):
        return None if got and write(dialect, got).strip() == text.strip() else f"other calls: {got}"
    begins = [marker.text for marker in REGISTRY[dialect].markers if not marker.at_start and len(marker.text) > 3]
    left = (parsed.content + parsed.reasoning).rstrip()
    is_plain = left and not any(begin in left.removesuffix(begin) for begin in begins)
    if len(got) < len(calls) and not parsed.problems and not is_plain:
        return f"no problem tells of the lost call: {parsed}"
    return None


def _same(call: Call, other: Call) -> bool:
    """Whether calls are the same but for white space around their texts, which damage may move."""
    return call["name"] == other["name"] and _trimmed(call["arguments"]) == _trimmed(other["arguments"])


def _trimmed(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value.strip() if isinstance(value, str) else value for key, value in arguments.items()}


@pytest.mark.parametrize("dialect", WRITERS)
def test_one_damaged_token_makes_no_other_call(dialect: str) -> None:
    wrong = []
    for calls in ([SAVE], [SAVE, LOOK]):
        for how, text in damaged(render(dialect, calls=calls)):
            for name in (dialect, "auto"):
                if why := wrong_outcome(parse(text, TOOLS, name), calls, text, dialect):
                    wrong.append(f"{name}, {how}: {why}\n    {text!r}")
    assert not wrong, f"{len(wrong)} outcomes, the first of them\n" + "\n".join(wrong[:3])
