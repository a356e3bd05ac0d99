"""The parser of a model's text: content, reasoning and calls, whatever the dialect and however the text was cut.

A `Reading` reads the text; here it is fed, and what is certain is given. Prose takes a short way past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.grammar import grammar_for
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.reasoning_channel import ReasoningChannel
from lmdeck._parsing.scanner import Reading
from lmdeck._parsing.source import MalformedCall
from lmdeck.events import Chunk
from lmdeck.messages import ParsedMessage

__all__ = ["StreamParser", "parse"]

BYTE_LEVEL = str.maketrans({"Ġ": " ", "Ċ": "\n"})


class StreamParser:
    """Read a model's text as it arrives: `feed` pieces, then `finish`; `result` is all of it."""

    def __init__(
        self, tools: Toolbox | Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "", *,
        new_id: Callable[[], str] = new_call_id, architecture: str = "",
    ) -> None:  # fmt: skip
        toolbox = Toolbox.of(tools)
        self._grammar = grammar_for(dialect, architecture, has_calls=bool(toolbox))
        self._reading = Reading(toolbox, self._grammar, new_id)
        self._calls = self._reading.calls
        self.content = self._calls.content
        self.reasoning = self._calls.reasoning
        self.problems = self._calls.problems  # what was repaired, dropped or left as text
        self._is_begun = bool(prefix)
        self._is_finished = False
        self._byte_level = self._grammar.byte_level
        self._channel: ReasoningChannel | None = None
        self._run = self._reading.run(prefix)
        next(self._run, None)
        self._early = self._calls.chunks  # what the prefix holds

    def feed(self, text: str) -> list[Chunk]:
        """Read new text and give what is certain."""
        chunks: list[Chunk] = []
        self.feed_into(text, chunks)
        return chunks

    def feed_into(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text and add to `chunks` what is certain."""
        if self._byte_level:
            text = text.translate(BYTE_LEVEL)
        if not text or self._is_finished:
            return
        self._is_begun = True
        calls, source = self._calls, self._reading.source
        if self._early:
            chunks += self._early
            self._early = []
        calls.chunks = chunks
        if self._channel is not None and not text.isspace():
            self._end_channel(answered=True)
        if not source.passes(text):
            source.feed(text)
            self._advance()
        elif calls.name:
            self._flush()

    def feed_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text of a reasoning channel that stands beside the text, and add to `chunks` what is certain."""
        if self._is_finished:
            return
        if self._channel is None:
            self._channel = ReasoningChannel(self._reading)
        first = len(chunks)
        self._calls.chunks = chunks
        self._channel.feed(text)
        if len(chunks) - first > 1:
            chunks[first:] = _joined(chunks[first:])

    def _end_channel(self, *, answered: bool) -> None:
        """Read the end of the reasoning channel; `answered`, what looks like a call in it is none."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.end(answered=answered)

    def feed_whole(self, text: str, chunks: list[Chunk]) -> None:
        """Read an answer that came in one piece: a lone end tag in it means that the template opened the reasoning.

        A stream cannot know that in time, as content that was returned cannot be taken back; `parse` returns what a stream
        returns. (LM Studio bug tracker #1368.)
        """
        tag = None if self._is_begun else self._grammar.opened_by_template(text)
        if tag is not None:
            self._run = self._reading.run(tag.open)
            next(self._run, None)
        self.feed_into(text, chunks)

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        """Read the end of the text and give the rest; with `answered`, calls in the reasoning do not count."""
        if self._is_finished:
            return []
        chunks, self._early = self._early, []
        self._calls.chunks = chunks
        self._reading.is_answered = answered
        self._reading.source.close()
        self._advance()
        self._end_channel(answered=answered or bool(self._calls.made))
        self._is_finished = True
        return chunks

    @property
    def result(self) -> ParsedMessage:
        """What was read so far, without outer white space."""
        calls = self._calls
        return ParsedMessage(
            content=calls.content.getvalue().strip(),
            reasoning=calls.reasoning.getvalue().strip(),
            tool_calls=list(calls.made),
            problems=list(calls.problems),
        )

    def _advance(self) -> None:
        """Let the readers go on; what they said of one kind in a row is one chunk."""
        chunks = self._calls.chunks
        first = len(chunks)
        next(self._run, None)
        if self._calls.name:
            self._flush()
        if len(chunks) - first > 1:
            chunks[first:] = _joined(chunks[first:])

    def _flush(self) -> None:
        try:
            self._calls.flush()
        except MalformedCall as refusal:
            self._run.throw(refusal)


def _joined(chunks: list[Chunk]) -> list[Chunk]:
    """Join neighbours of the same kind."""
    joined: list[Chunk] = []
    for kind, group in groupby(chunks, key=_kind):
        if kind == "content":
            joined.append(Chunk("".join(chunk.content for chunk in group)))
        elif kind == "reasoning":
            joined.append(Chunk("", "".join(chunk.reasoning for chunk in group)))
        else:
            joined += group
    return joined


def _kind(chunk: Chunk) -> str:
    return "content" if chunk.content else "reasoning" if chunk.reasoning else ""


def parse(text: str, tools: Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "") -> ParsedMessage:
    """Read a whole text.

    Raises:
        ConfigurationError: There is no dialect of that name.
    """
    parser = StreamParser(tools, dialect, prefix)
    parser.feed(text)
    parser.finish()
    return parser.result
