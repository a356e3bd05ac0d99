"""Reasoning that a server hands on apart from the answer: the same scanner reads it, from a text of its own."""

from __future__ import annotations

from msgspec.structs import force_setattr, replace

from lmdeck._parsing.scanner import Reading
from lmdeck._parsing.source import Source

__all__ = ["ReasoningChannel"]


class ReasoningChannel:
    """One run of reasoning. From what looks like a call on, text is held until it is known whether an answer follows."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._source = Source()
        self._is_answered = False
        self._run = reading.read_channel(self._source, lambda: self._is_answered)
        self._is_begun = False

    def feed(self, text: str) -> None:
        """Read new text."""
        if self._source.passes(text):
            return
        self._source.feed(text)
        self._advance()

    def end(self, *, answered: bool) -> None:
        """Read the end of the text; where nothing answered, the calls in it count. They have no place in the answer's text."""
        calls = self._reading.calls
        made, problems = len(calls.made), len(calls.problems)
        self._is_answered = answered
        self._source.close()
        self._advance()
        calls.problems[problems:] = [replace(problem, span=None) for problem in calls.problems[problems:]]
        for call in calls.made[made:]:
            force_setattr(call, "span", None)
        if len(calls.made) > made:
            calls.dropped("calls_in_reasoning", "The calls stood in the reasoning")

    def _advance(self) -> None:
        reading, calls = self._reading, self._reading.calls
        outer = reading.source
        reading.source = calls.source = self._source
        next(self._run, None)
        reading.source = calls.source = outer
