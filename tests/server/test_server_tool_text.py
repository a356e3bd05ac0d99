"""Tool calls of LM Studio's default format, in text cut anywhere."""

from __future__ import annotations

import pytest

from lmdeck._encoders.backend_events import TextDelta, ToolArgumentsDelta, ToolCallOpened
from lmdeck.server import tool_text
from lmdeck.server.tool_text import CallFinder, ConstrainedCall, partial_marker_length

CALL = '[TOOL_REQUEST]{"name": "f", "arguments": {"a": "}[é"}}[END_TOOL_REQUEST]'


def read(reader: CallFinder | ConstrainedCall, *pieces: str) -> tuple[str, list[tuple[str, str]]]:
    """Feed the pieces and return the text and the calls, whatever events carried them."""
    text, calls = "", []
    for event in [*(e for piece in pieces for e in reader.feed(piece)), *reader.finish()]:
        match event:
            case TextDelta(text=more):
                assert more
                text += more
            case ToolCallOpened(name=name):
                calls.append((name, ""))
            case ToolArgumentsDelta(text=more):
                calls[-1] = (calls[-1][0], calls[-1][1] + more)
    return text, calls


CASES = [
    ("", "", []),
    ("just [TOOL text", "just [TOOL text", []),
    (CALL, "", [("f", '{"a": "}[é"}')]),
    (f"Well: {CALL}\n{CALL} ", "Well: ", [("f", '{"a": "}[é"}')] * 2),
    (f"{CALL}\nDone.", "\nDone.", [("f", '{"a": "}[é"}')]),
    ("[TOOL_REQUEST]nonsense[END_TOOL_REQUEST]!", "[TOOL_REQUEST]nonsense[END_TOOL_REQUEST]!", []),
    ('[TOOL_REQUEST]{"name": "f", "arguments": "a"}[END_TOOL_REQUEST]', None, []),
    ('[TOOL_REQUEST]{"name": "", "arguments": {}}[END_TOOL_REQUEST]', None, []),
    ('[TOOL_REQUEST]{"name": "f", "argum', None, []),
    ("a [TOOL_REQUEST] b [END_TOOL", None, []),
]


@pytest.mark.parametrize(("text", "content", "calls"), CASES)
def test_any_split_gives_the_same(text: str, content: str | None, calls: list[tuple[str, str]]) -> None:
    expected = (text if content is None else content, calls)
    assert read(CallFinder(), *text) == expected
    for cut in range(len(text) + 1):
        assert read(CallFinder(), text[:cut], text[cut:]) == expected


def test_text_that_cannot_begin_a_call_is_not_held_back() -> None:
    assert list(CallFinder().feed("Hello")) == [TextDelta("Hello")]


def test_a_block_without_end_becomes_text_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_text, "MAX_CALL_CHARS", 10)
    finder = CallFinder()
    assert list(finder.feed("[TOOL_REQUEST]" + "x" * 11)) == [TextDelta("[TOOL_REQUEST]" + "x" * 11)]
    assert read(finder, CALL)[1] == []


@pytest.mark.parametrize("cut", range(len(CALL)))
def test_a_constrained_call_is_the_same_at_any_split(cut: int) -> None:
    assert read(ConstrainedCall(), CALL[:cut], CALL[cut:]) == ("", [("f", '{"a": "}[é"}')])


def test_a_constrained_call_hands_its_arguments_on_as_they_come() -> None:
    reader = ConstrainedCall()
    assert [type(e) for e in reader.feed('[TOOL_REQUEST]{"name": "f", "arguments": {"a"')] == [
        ToolCallOpened,
        ToolArgumentsDelta,
    ]
    assert list(reader.feed(': "x')) == [ToolArgumentsDelta(': "x')]


def test_a_constrained_call_that_was_cut_short_keeps_what_came() -> None:
    assert read(ConstrainedCall(), CALL[:50]) == ("", [("f", CALL[41:50])])
    assert read(ConstrainedCall(), CALL[:20]) == (CALL[:20], [])


def test_the_partial_marker_is_the_longest_possible_beginning() -> None:
    assert (
        partial_marker_length("ab[", "[T"),
        partial_marker_length("x", "[T"),
        partial_marker_length("[[TO", "[TOOL"),
        partial_marker_length("[T", "[T"),
    ) == (1, 0, 3, 0)
