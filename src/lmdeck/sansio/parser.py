"""The parser of a model's text: content, reasoning and calls, whatever the dialect and however the text was cut.

A `Reading` reads the text; here it is fed, and what is certain is given. Prose takes a short way past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lmdeck.events import Chunk
from lmdeck.messages import ParsedMessage, Problem
from lmdeck.sansio.grammar import grammar_for
from lmdeck.sansio.reading import Reading
from lmdeck.sansio.text import GrowingText
from lmdeck.sansio.toolbox import Toolbox

__all__ = ["StreamParser", "parse"]

BYTE_LEVEL = str.maketrans({"Ġ": " ", "Ċ": "\n"})


def _new_id() -> str:
    from lmdeck.sansio.assembler import new_call_id

    return new_call_id()


class StreamParser:
    """Read a model's text as it arrives: `feed` pieces, then `finish`; `result` is all of it."""

    def __init__(
        self, tools: Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "", *,
        new_id: Callable[[], str] = _new_id, architecture: str = "",
    ) -> None:  # fmt: skip
        toolbox = Toolbox(tools)
        self._grammar = grammar_for(dialect, tuple(toolbox.schemas), architecture)
        self._head: GrowingText | None = None if prefix or self._grammar.has_calls else GrowingText()
        self._reading = Reading(toolbox, self._grammar, new_id)
        self._calls = self._reading.calls
        self._is_finished = False
        self._trigger = self._grammar.trigger.search
        self._run = self._reading.run(prefix)
        if self._head is None:
            next(self._run, None)

    def feed(self, text: str) -> list[Chunk]:
        """Read new text and give what is certain."""
        if self._grammar.byte_level:
            text = text.translate(BYTE_LEVEL)
        if text and self.is_plain(text):
            return [Chunk(text)]
        if not text or self._is_finished:
            return []
        self._reading.source.feed(text)
        return self._advance()

    def read_whole(self, text: str) -> list[Chunk]:
        """Read an answer that came in one piece: in it a lone end tag tells that the template had opened the reasoning.

        A stream cannot know that in time: what it has given as content is not taken back. (LM Studio bug tracker #1368.)
        """
        tag = self._grammar.opened_by_template(text)
        if tag is not None and self._head is not None and not self._head:
            self._head = None
            self._run = self._reading.run(tag.open)
            next(self._run, None)
        elif tag is not None and not self._calls.content and not self._reading.had_reasoning:
            self._run = self._reading.run(tag.open)
            next(self._run, None)
        return self.feed(text)

    def is_plain(self, text: str) -> bool:
        """Tell whether text is content as it stands, and count it as read if so: the short way for prose."""
        if self._trigger(text) is not None or self._is_finished:
            self._begin()
            return False
        head = self._head
        if head is not None and (head or text[:1] not in self._grammar.first_chars):
            head.write(text)
            return True
        self._begin()
        if self._reading.is_plain:
            self._calls.content.write(text)
            self._calls.prose.pass_plain(text)
            return True
        return False

    def _begin(self) -> None:
        """Start the machine, which an answer of nothing but prose never needs, and let it read what came before."""
        head, self._head = self._head, None
        if head is None:
            return
        next(self._run, None)
        if head:
            self._reading.source.feed(head.getvalue())
            self._advance()

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        """Read the end of the text and give the rest; with `answered`, calls in the reasoning do not count."""
        if self._is_finished:
            return []
        if self._head is not None:
            self._is_finished = True
            return []
        self._reading.is_answered = answered
        self._reading.source.closed = True
        chunks = self._advance()
        self._is_finished = True
        return chunks

    @property
    def problems(self) -> list[Problem]:
        """What was repaired, dropped or left as text."""
        return list(self._calls.problems)

    @property
    def result(self) -> ParsedMessage:
        """What was read so far, without outer white space."""
        self._begin()
        calls = self._calls
        return ParsedMessage(
            content=calls.content.getvalue().strip(),
            reasoning=calls.reasoning.getvalue().strip(),
            tool_calls=list(calls.made),
            problems=list(calls.problems),
        )

    def _advance(self) -> list[Chunk]:
        next(self._run, None)
        calls = self._calls
        if calls.is_open:
            calls.flush()
        given = self._reading.chunks[:]
        self._reading.chunks.clear()
        return _joined(given) if len(given) > 1 else given


def _joined(chunks: list[Chunk]) -> list[Chunk]:
    """Join neighbours of the same kind."""
    joined: list[Chunk] = []
    for chunk in chunks:
        last = joined[-1] if joined else None
        if last is not None and chunk.content and last.content:
            joined[-1] = Chunk(last.content + chunk.content)
        elif last is not None and chunk.reasoning and last.reasoning:
            joined[-1] = Chunk("", last.reasoning + chunk.reasoning)
        else:
            joined.append(chunk)
    return joined


def parse(text: str, tools: Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "") -> ParsedMessage:
    """Read a whole text.

    Raises:
        ConfigurationError: There is no dialect of that name.
    """
    parser = StreamParser(tools, dialect, prefix)
    parser.feed(text)
    parser.finish()
    return parser.result
