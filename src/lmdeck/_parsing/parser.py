"""The parser of a model's text: content, reasoning and calls.

It reads any dialect, and the text may be cut anywhere. A `Scanner` reads the text; this module feeds it and returns what is
certain. Plain text takes a shortcut past it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.grammar import grammar_for
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.reasoning_channel import ReasoningChannel
from lmdeck._parsing.scanner import Scanner
from lmdeck._parsing.source import MalformedCall
from lmdeck.events import Chunk
from lmdeck.messages import ParsedMessage

TEXTS_AT_ONCE = 32
BYTE_LEVEL = str.maketrans({"Ġ": " ", "Ċ": "\n"})


class StreamParser:
    """A parser of text as it arrives.

    `feed` pieces, then `finish`; `result` is the whole message.
    """

    __slots__ = (
        "__weakref__", "_byte_level", "_channel", "_early", "_grammar", "_has_started", "_is_finished", "_is_plain", "_run",
        "_scanner", "_sink", "content", "problems", "reasoning",
    )  # fmt: skip

    def __init__(
        self, tools: OfferedTools | Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "", *,
        new_id: Callable[[], str] = new_call_id, architecture: str = "",
    ) -> None:  # fmt: skip
        tools = OfferedTools.of(tools)
        self._grammar = grammar_for(dialect, architecture, has_calls=bool(tools))
        self._scanner = Scanner(tools, self._grammar, new_id)
        self._sink = self._scanner.sink
        self.content = self._sink.content
        self.reasoning = self._sink.reasoning
        self.problems = self._sink.problems  # what was repaired, dropped or left as text
        self._has_started = bool(prefix)
        self._is_finished = False
        self._is_plain = False  # whether all text came in one piece and held no markup
        self._byte_level = self._grammar.byte_level
        self._channel: ReasoningChannel | None = None
        self._early: list[Chunk] = []  # chunks of the prefix
        self._run = self._scanner.run(prefix)
        if prefix:
            next(self._run, None)
            self._early = self._sink.chunks

    def feed(self, text: str) -> list[Chunk]:
        """Read new text and return the chunks that are certain."""
        chunks: list[Chunk] = []
        self.feed_into(text, chunks)
        return chunks

    def feed_into(self, text: str, chunks: list[Chunk]) -> None:
        """Read new text and append the chunks that are certain."""
        if self._byte_level:
            text = text.translate(BYTE_LEVEL)
        if not text or self._is_finished:
            return
        self._has_started = True
        sink, source = self._sink, self._scanner.source
        if self._early:
            chunks += self._early
            self._early = []
        sink.chunks = chunks
        if self._channel is not None and not text.isspace():
            self._end_channel(answered=True)
        if not source.passes(text):
            source.feed(text)
            self._advance()
        elif sink.name:
            self._flush()

    def feed_texts(self, texts: list[str], chunks: list[Chunk]) -> None:
        """Read new texts, which came together, and append the chunks that are certain.

        Texts without markup are looked at together, and are a chunk each.
        """
        if len(texts) == 1:
            self.feed_into(texts[0], chunks)
            return
        for begin in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[begin : begin + TEXTS_AT_ONCE]
            if not self._pass_together(some, chunks):
                for text in some:
                    self.feed_into(text, chunks)

    def _pass_together(self, texts: list[str], chunks: list[Chunk]) -> bool:
        """Read texts at once if nothing in them concerns the readers; return whether that is so."""
        if self._byte_level or self._channel is not None or self._early or self._sink.name:
            return False
        whole, first = "".join(texts), len(chunks)
        self._sink.chunks = chunks
        if self._is_finished or not self._scanner.source.passes(whole):
            return False
        if len(chunks) == first + 1 and chunks[first].content == whole:
            chunks[first:] = map(Chunk, texts)
        return True

    def feed_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        """Read text of the server's own reasoning channel; append the chunks that are certain."""
        if self._channel is None:
            self._channel = ReasoningChannel(self._scanner)
        first = len(chunks)
        self._sink.chunks = chunks
        self._channel.feed(text)
        if len(chunks) - first > 1:
            chunks[first:] = _joined(chunks[first:])

    def _end_channel(self, *, answered: bool) -> None:
        """Read the end of the reasoning channel; with `answered`, calls in it do not count."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.end(answered=answered)

    def feed_whole(self, text: str, chunks: list[Chunk]) -> None:
        """Read an answer that came in one piece: plain text at once, without the scanner.

        A lone end tag in it means that the template opened the reasoning. A stream cannot know that in time, as content that
        was returned cannot be taken back; `parse` returns what a stream returns. (LM Studio bug tracker #1368.)
        """
        is_all = not (self._has_started or self._is_finished)
        if is_all and self._channel is None and self._grammar.is_plain(text):
            self._sink.chunks = chunks
            self._scanner.pass_plain(text)
            self._is_plain = True
            return
        tag = self._grammar.opened_by_template(text) if is_all else None
        if tag is not None:
            self._run = self._scanner.run(tag.open)
            next(self._run, None)
        self.feed_into(text, chunks)

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        """Read the end of the text and return the last chunks.
        With `answered`, calls in the reasoning do not count.
        """
        if self._is_finished:
            return []
        if self._is_plain and not self._has_started and self._channel is None:
            self._is_finished = True
            self._scanner.report_left_over_call()
            return []
        chunks, self._early = self._early, []
        self._sink.chunks = chunks
        self._scanner.is_answered = answered
        self._scanner.source.close()
        self._advance()
        self._end_channel(answered=answered or bool(self._sink.completed))
        self._is_finished = True
        return chunks

    @property
    def result(self) -> ParsedMessage:
        """The message read so far, without outer white space."""
        sink = self._sink
        return ParsedMessage(
            content=sink.content.getvalue().strip(),
            reasoning=sink.reasoning.getvalue().strip(),
            tool_calls=list(sink.completed),
            problems=list(sink.problems),
        )

    def _advance(self) -> None:
        """Resume the readers and join neighbouring chunks of the same kind."""
        chunks = self._sink.chunks
        first = len(chunks)
        next(self._run, None)
        if self._sink.name:
            self._flush()
        if len(chunks) - first > 1:
            chunks[first:] = _joined(chunks[first:])

    def _flush(self) -> None:
        try:
            self._sink.flush()
        except MalformedCall as refusal:
            self._run.throw(refusal)


def _joined(chunks: list[Chunk]) -> list[Chunk]:
    """Join neighbours of the same kind."""
    if all(chunk.content for chunk in chunks):
        return [Chunk("".join(chunk.content for chunk in chunks))]
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
    """Return the message in a whole text.

    Raises:
        ConfigurationError: There is no dialect of that name.
    """
    parser = StreamParser(tools, dialect, prefix)
    parser.feed(text)
    parser.finish()
    return parser.result
