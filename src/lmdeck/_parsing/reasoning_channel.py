"""Reasoning that a server sends separately: the same scanner, on a separate source."""

from __future__ import annotations

from msgspec.structs import force_setattr, replace

from lmdeck._parsing.scanner import Scanner
from lmdeck._parsing.source import Source


class ReasoningChannel:
    """One run of reasoning.

    From a possible call on, its text is held back until it is known whether an answer follows.
    """

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._source = Source()
        self._is_answered = False
        self._run = scanner.read_channel(self._source, lambda: self._is_answered)
        self._has_started = False

    def feed(self, text: str) -> None:
        """Read new text."""
        if self._source.passes(text):
            return
        self._source.feed(text)
        self._advance()

    def end(self, *, answered: bool) -> None:
        """Read the end of the text.

        Unless the model `answered`, calls in the reasoning count. They have no span in the content's text.
        """
        sink = self._scanner.sink
        completed, problems = len(sink.completed), len(sink.problems)
        self._is_answered = answered
        self._source.close()
        self._advance()
        sink.problems[problems:] = [replace(problem, span=None) for problem in sink.problems[problems:]]
        for call in sink.completed[completed:]:
            force_setattr(call, "span", None)
        if len(sink.completed) > completed:
            sink.report("calls_in_reasoning", "The calls were in the reasoning")

    def _advance(self) -> None:
        scanner, sink = self._scanner, self._scanner.sink
        outer = scanner.source
        scanner.source = sink.source = self._source
        next(self._run, None)
        scanner.source = sink.source = outer
