"""Stop strings, in text cut anywhere."""

from __future__ import annotations

import pytest

from lmdeck.engine.stops import StopFilter


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        ((), "abc", "abc"),
        (("b",), "abc", "a"),
        (("bc", "c"), "abc", "a"),
        (("cd", "b"), "abcd", "a"),
        (("abd",), "ababd", "ab"),
        (("xyz",), "wxy", "wxy"),
        (("é🎉",), "a é🎉", "a "),
    ],
)
def test_any_split_ends_at_the_first_stop_string(stops: tuple[str, ...], text: str, expected: str) -> None:
    for cut in range(len(text) + 1):
        filter_ = StopFilter(stops)
        passed = "".join("" if filter_.found else filter_.feed(piece) for piece in (text[:cut], text[cut:]))
        assert passed + ("" if filter_.found else filter_.finish()) == expected


def test_text_that_cannot_begin_a_stop_string_is_not_held_back() -> None:
    assert StopFilter(("END",)).feed("some text E") == "some text "
