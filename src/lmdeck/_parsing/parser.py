"""The parser of a model's text: content, reasoning and calls.

It reads any dialect, and the text may be cut anywhere. A `Scanner` reads the text; this module feeds it and returns what is
certain. Plain text bypasses the scanner, and a whole answer that is plain text does not need one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from lmdeck._chunks import Chunk
from lmdeck._parsing.call_ids import new_call_id
from lmdeck._parsing.grammar import grammar_for
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.reasoning_channel import ReasoningChannel
from lmdeck._parsing.scanner import Scanner
from lmdeck._parsing.source import MalformedCall
from lmdeck._parsing.text_buffer import TextBuffer
from lmdeck.messages import ParsedMessage, Problem

TEXTS_AT_ONCE = 32
BYTE_LEVEL = str.maketrans({"Ġ": " ", "Ċ": "\n"})


class StreamParser:
    """A parser of text as it arrives.

    `feed` pieces, then `finish`; `result` is the whole message.
    """

    __slots__ = (
        "__weakref__", "_byte_level", "_channel", "_early", "_grammar", "_has_started", "_is_finished", "_new_id", "_run",
        "_scanner", "_sink", "_tools", "content", "problems", "reasoning",
    )  # fmt: skip

    def __init__(
        self, tools: OfferedTools | Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "", *,
        new_id: Callable[[], str] = new_call_id, architecture: str = "",
    ) -> None:  # fmt: skip
        self._tools = tools if isinstance(tools, OfferedTools) else OfferedTools(tools)
        self._grammar = grammar_for(dialect, architecture, has_calls=bool(self._tools.schemas))
        self._new_id = new_id
        self._scanner: Scanner | None = None
        self.content = TextBuffer()
        self.reasoning = TextBuffer()
        self.problems: list[Problem] = []  # what was repaired, dropped or left as text
        self._has_started = bool(prefix)
        self._is_finished = False
        self._byte_level = self._grammar.byte_level
        self._channel: ReasoningChannel | None = None
        self._early: list[Chunk] = []  # chunks of the prefix
        if prefix:
            self._start(prefix)
            next(self._run, None)
            self._early = self._sink.chunks

    def _start(self, prefix: str = "") -> Scanner:
        """Create the scanner; its sink appends to what the parser has written so far."""
        scanner = self._scanner = Scanner(self._tools, self._grammar, self._new_id)
        sink = self._sink = scanner.sink
        sink.content, sink.reasoning, sink.problems = self.content, self.reasoning, self.problems
        if before := self.content.getvalue():
            scanner.source.base = len(before)
            sink.code_spans.feed(before)
        self._run = scanner.run(prefix)
        return scanner

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
        source = (self._scanner or self._start()).source
        sink = self._sink
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
        """Read new texts that arrived together, and append the chunks that are certain.

        Texts without markup are examined together, and each becomes a chunk.
        """
        for begin in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[begin : begin + TEXTS_AT_ONCE]
            if not self._pass_together(some, chunks):
                for text in some:
                    self.feed_into(text, chunks)

    def _pass_together(self, texts: list[str], chunks: list[Chunk]) -> bool:
        """Read texts together if nothing in them concerns the readers; return whether that is so."""
        scanner = self._scanner or self._start()
        if self._byte_level or self._channel is not None or self._early or scanner.sink.name:
            return False
        whole, first = "".join(texts), len(chunks)
        scanner.sink.chunks = chunks
        if self._is_finished or not scanner.source.passes(whole):
            return False
        if len(chunks) == first + 1 and chunks[first].content == whole:
            chunks[first:] = map(Chunk, texts)
        return True

    def feed_reasoning(self, text: str, chunks: list[Chunk]) -> None:
        """Read text of the server's reasoning channel and append the chunks that are certain."""
        if self._channel is None:
            self._channel = ReasoningChannel(self._scanner or self._start())
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
        """Read an answer that arrived in one piece; plain text does not need the scanner.

        A lone reasoning end tag in it means that the template opened the reasoning. A stream cannot know that in time, because
        content that was returned cannot be withdrawn, and `parse` returns what a stream returns (LM Studio bug tracker #1368).
        """
        is_all = not (self._has_started or self._is_finished)
        if is_all and self._scanner is None and self._grammar.is_plain(text):
            self.content.write(text)
            chunks.append(Chunk(text))
            return
        tag = self._grammar.opened_by_template(text) if is_all else None
        if tag is not None:
            self._run = (self._scanner or self._start()).run(tag.open)
            next(self._run, None)
        self.feed_into(text, chunks)

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        """Read the end of the text and return the last chunks.

        With `answered`, calls in the reasoning do not count.
        """
        if self._is_finished:
            return []
        self._is_finished = True
        scanner = self._scanner
        if scanner is None:
            if self._tools.schemas:
                self._start().report_unread_call()
            return []
        chunks, self._early = self._early, []
        scanner.sink.chunks = chunks
        scanner.is_answered = answered
        scanner.source.close()
        self._advance()
        self._end_channel(answered=answered or bool(scanner.sink.completed))
        return chunks

    @property
    def result(self) -> ParsedMessage:
        """The message read so far, without outer white space."""
        return ParsedMessage(
            content=self.content.getvalue().strip(),
            reasoning=self.reasoning.getvalue().strip(),
            tool_calls=[] if self._scanner is None else list(self._scanner.sink.completed),
            problems=list(self.problems),
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
    """Return chunks with neighbours of the same kind joined."""
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
