"""Where each character of a text went: content, reasoning, the span of a call, the span of a problem, or markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from laws.material import LITERALS
from lmdeck import Chunk, ParsedMessage

__all__ = ["unaccounted"]

_LITERAL = re.compile("|".join(re.escape(literal) for literal in sorted(LITERALS, key=len, reverse=True)))
_HEADER = re.compile(
    r"<\|start\|>\s*(?:assistant|user|system|developer|tool|functions)"
    r"|<\|channel\|>\s*(?:analysis|commentary|final)|<\|constrain\|>\s*(?:json|xml)|\s*to=(?:self|user|assistant)\b"
    r"|<\|(?:open|close)\|>\s*(?:think|response|tools|message|call|argument)?[^<]*<\|sep\|>"
    r"|<\|channel>thought|>>>all|</co: [\d:,.\[\] \-]*>"
    r"|<\|(?:end|call|return|eom|eot)\|>(?:commentary|analysis|final|assistant)(?=<\||\0)"
)
"""The words of a message's header, which are markup as its tokens are."""
_CALL = "\0"
"""What stands for a character of a call."""
_BLANK = f"ĠĊ{_CALL}"
"""What byte-level tokenizers leave of a space and a line end, and calls."""


def unaccounted(text: str, parsed: ParsedMessage, chunks: Iterable[Chunk]) -> str | None:
    """Return what is wrong with the account of a text, None where every character is in it.

    The content and reasoning, in the order in which they came, must be the text without white space, markup and the spans of
    calls and problems. Text in the span of a problem may be content as well; text in the span of a call may not, except where
    the call stood in the reasoning.
    """
    calls = [call.span for call in parsed.tool_calls]
    told = [problem.span for problem in parsed.problems if problem.span is not None]
    for span in calls + told:
        if span is None or not 0 <= span[0] <= span[1] <= len(text):
            return f"the span {span} is not in the text"
    may_miss = bytearray(len(text) + 1)
    for begin, end in told:
        may_miss[begin:end] = b"\1" * (end - begin)
    if any(one is None or other is None or one[1] > other[0] for one, other in pairwise(calls)):
        return f"the spans of calls overlap: {calls}"
    if not any(problem.code == "calls_in_reasoning" for problem in parsed.problems):
        text = _blanked(text, [span for span in calls if span is not None])
    return _follow(text, "".join(chunk.content + chunk.reasoning for chunk in chunks), may_miss)


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    """Return the text without what is in some spans."""
    for begin, end in spans:
        text = text[:begin] + _CALL * (end - begin) + text[end:]
    return text


def _follow(text: str, emitted: str, may_miss: bytearray) -> str | None:
    """Follow the emitted characters through the text; return where that fails.

    A set of positions in the text is an integer with a bit for each, so that all of them take a step at once.
    """
    places: dict[str, int] = {}
    for at, char in enumerate(text):
        places[char] = places.get(char, 0) | 1 << at
    skips = _Skips(text, may_miss)
    states = skips.closure(1)
    for count, char in enumerate(emitted):
        if char.isspace():
            continue
        following = (states & places.get(char, 0)) << 1
        if not following:
            rest = text[states.bit_length() - 1 :]
            return f"{emitted[count : count + 40]!r} was emitted where the text went on with {rest[:40]!r}"
        states = skips.closure(following)
    return None if states >> len(text) else f"{text[states.bit_length() - 1 :][:60]!r} is nowhere"


class _Skips:
    """The steps through a text that emit nothing: over single characters, and over markup."""

    def __init__(self, text: str, may_miss: bytearray) -> None:
        self._single = 0
        self._ends: dict[int, int] = {}
        self._starts = 0
        for at, char in enumerate(text):
            if may_miss[at] or char.isspace() or char in _BLANK:
                self._single |= 1 << at
            ends = 0
            for pattern in (_LITERAL, _HEADER):
                if (found := pattern.match(text, at)) is not None:
                    ends |= 1 << found.end()
            if ends:
                self._ends[at] = ends
                self._starts |= 1 << at

    def closure(self, states: int) -> int:
        """Return all positions that are reached from some without emitting a character."""
        followed = 0
        while True:
            # The carry of the sum runs through each run of single steps, from its first position on.
            states |= ((states & self._single) + self._single) ^ self._single
            waiting = states & self._starts & ~followed
            if not waiting:
                return states
            followed |= waiting
            while waiting:
                lowest = waiting & -waiting
                states |= self._ends[lowest.bit_length() - 1]
                waiting ^= lowest
