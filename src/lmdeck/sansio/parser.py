"""The parser of a model's text: content, reasoning and calls, whatever the dialect and however the text was cut.

One generator reads the text from a `Source`. It scans for all begin markers at once, holds back only what may still become
one, and hands over to the marker's reader. What a reader refuses is given back as content, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from lmdeck.events import Chunk
from lmdeck.messages import ParsedMessage, Problem
from lmdeck.sansio.bare import begins_bare
from lmdeck.sansio.calls import Calls
from lmdeck.sansio.dialects.declaration import Marker, ReasoningTags
from lmdeck.sansio.grammar import grammar_for
from lmdeck.sansio.source import (
    MalformedCall,
    NotACall,
    Reader,
    Source,
    TruncatedCall,
    UnofferedCall,
    stops,
)
from lmdeck.sansio.text import GrowingText
from lmdeck.sansio.toolbox import Toolbox

__all__ = ["StreamParser", "parse"]

SHOWN = 2000
BYTE_LEVEL = str.maketrans({"Ġ": " ", "Ċ": "\n"})
BODY = re.compile(r"\s*(?:[\[{]|<(?:function|invoke|tool_call>|\||｜|arg_key)|call:|functions?[.<]|$)")


def _new_id() -> str:
    from lmdeck.sansio.assembler import new_call_id

    return new_call_id()


class StreamParser:
    """Read a model's text as it arrives: `feed` pieces, then `finish`; `result` is all of it."""

    def __init__(
        self, tools: Iterable[Any] | None = None, dialect: str = "auto", prefix: str = "", *,
        new_id: Callable[[], str] = _new_id, architecture: str = "",
    ) -> None:  # fmt: skip
        self._toolbox = Toolbox(tools)
        self._grammar = grammar_for(dialect, tuple(self._toolbox.schemas), architecture)
        self._head: GrowingText | None = None if prefix or self._grammar.has_calls else GrowingText()
        self._chunks: list[Chunk] = []
        self._calls = Calls(self._toolbox, new_id, self._chunks)
        self._source = Source()
        self._is_plain = False
        self._is_finished = False
        self._is_answered = False
        self._had_reasoning = False
        self._left_markup = False
        self._trigger = self._grammar.trigger.search
        self._run = self._read(prefix)
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
        self._source.feed(text)
        return self._advance()

    def read_whole(self, text: str) -> list[Chunk]:
        """Read an answer that came in one piece: in it a lone end tag tells that the template had opened the reasoning.

        A stream cannot know that in time: what it has given as content is not taken back. (LM Studio bug tracker #1368.)
        """
        tag = self._grammar.opened_by_template(text)
        if tag is not None and self._head is not None and not self._head:
            self._head = None
            self._run = self._read(tag.open)
            next(self._run, None)
        elif tag is not None and not self._calls.content and not self._had_reasoning:
            self._run = self._read(tag.open)
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
        if self._is_plain:
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
            self._source.feed(head.getvalue())
            self._advance()

    def finish(self, *, answered: bool = False) -> list[Chunk]:
        """Read the end of the text and give the rest; with `answered`, calls in the reasoning do not count."""
        if self._is_finished:
            return []
        if self._head is not None:
            self._is_finished = True
            return []
        self._is_answered = answered
        self._source.closed = True
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
        given = self._chunks[:]
        self._chunks.clear()
        return _joined(given) if len(given) > 1 else given

    def _read(self, prefix: str) -> Reader[None]:
        if prefix:
            yield from self._opened_by(prefix)
        yield from self._content()
        self._calls.end()
        self._reconsider_reasoning()

    def _opened_by(self, prefix: str) -> Reader[None]:
        """Read what the template had already written."""
        grammar = self._grammar
        last = max(
            (tag for tag in grammar.openers.values() if tag.open in prefix),
            key=lambda tag: prefix.rfind(tag.open), default=None,
        )  # fmt: skip
        if last is not None:
            if last.close not in prefix[prefix.rfind(last.open) :]:
                yield from self._reasoning(last)
            return
        last_message = max((prefix.rfind(text) for text, marker in grammar.markers.items() if marker.opens), default=-1)
        if last_message >= 0:
            self._source.feed(prefix[last_message:])
            return
        opened = next((text for text in grammar.call_markers if prefix.rstrip().endswith(text)), "")
        if opened:
            self._source.feed(opened)
            return
        begun = next((text for text in grammar.starts if len(text) > 1 and prefix.endswith(text)), "")
        self._source.feed(begun)

    def _content(self) -> Reader[None]:
        """Read the answer's text up to its end."""
        source, grammar, calls = self._source, self._grammar, self._calls
        while True:
            if calls.prose.is_line_start or not calls.content:
                if not calls.content and (yield from self._reads_opening()):
                    continue
                if (yield from self._reads_start_marker()):
                    continue
            if (yield from self._passes_text()):
                return
            found = grammar.tokens.pattern.match(source.text, source.at)
            if found:
                yield from self._token(found.group())

    def _reads_opening(self) -> Reader[bool]:
        """Read what stands before any content: white space, and reasoning."""
        source, grammar = self._source, self._grammar
        yield from self._pass_space()
        found = yield from source.ahead(grammar.opening)
        if found in grammar.openers and not (self._had_reasoning and found not in grammar.anywhere):
            source.at += len(found)
            yield from self._reasoning(grammar.openers[found])
            return True
        if found in grammar.closers:
            source.at += len(found)
            self._had_reasoning = True
            return True
        return False

    def _reads_start_marker(self) -> Reader[bool]:
        """Read a marker that counts only at the start of a line."""
        grammar = self._grammar
        if not grammar.starts:
            return False
        yield from self._pass_space()
        found = yield from self._source.ahead(grammar.start_tokens)
        if not found or self._calls.prose.shows_code():
            return False
        if found in grammar.bare and not (yield from begins_bare(self._source, grammar.bare)):
            return False
        yield from self._call(grammar.starts[found])
        return True

    def _pass_space(self) -> Reader[None]:
        source = self._source
        while True:
            begin = source.at
            rest = source.text[begin:]
            length = len(rest) - len(rest.lstrip())
            if length:
                source.at = begin + length
                self._calls.say(rest[:length])
            if source.at < len(source.text) or source.closed:
                return
            yield

    def _passes_text(self) -> Reader[bool]:
        """Pass text on up to the next token or line end; tell whether the text is over."""
        source, grammar, calls = self._source, self._grammar, self._calls
        has_starts = bool(grammar.starts)
        while True:
            text, at = source.text, source.at
            found = grammar.tokens.pattern.search(text, at)
            end = found.start() if found else len(text) if source.closed else grammar.tokens.tail(text, at)
            if has_starts:
                newline = text.find("\n", at, end)
                if newline >= 0:
                    calls.say(text[at : newline + 1])
                    source.at = newline + 1
                    if calls.prose.is_line_start or not calls.content:
                        return False
                    continue
            if end > at:
                calls.say(text[at:end])
                source.at = end
            if found:
                return False
            if source.closed:
                return True
            self._is_plain = end == len(text) and calls.is_plain
            yield
            self._is_plain = False

    def _token(self, token: str) -> Reader[None]:
        """Read what a token in the text begins."""
        source, grammar, calls = self._source, self._grammar, self._calls
        if calls.prose.shows_code():
            source.at += len(token)
            calls.say(token)
        elif token in grammar.markers:
            yield from self._call(grammar.markers[token])
        elif token in grammar.anywhere:
            source.at += len(token)
            yield from self._reasoning(grammar.anywhere[token])
        else:
            source.at += len(token)
            if (token in grammar.drops and not self._left_markup) or not calls.content:
                calls.hold_space()
            else:
                calls.say(token)

    def _reasoning(self, tags: ReasoningTags) -> Reader[None]:
        """Read reasoning up to its end tag, to a call that ends it, or to the end of the text."""
        source, calls = self._source, self._calls
        self._had_reasoning = True
        if tags.label:
            yield from source.take(stops(tags.label + "\n"))
        yield from source.skip_space()
        closing = stops(tags.close, *tags.also_closes)
        markers = self._grammar.call_markers if self._toolbox else ()
        wanted = stops(*closing.literals, *self._grammar.inline, *self._grammar.reserved, *markers)
        while True:
            found = yield from source.until(wanted, calls.think)
            if not found:
                calls.problems.append(Problem("reasoning_unclosed", "The reasoning has no end."))
                return
            if found in closing.literals:
                break
            if found in self._grammar.inline:
                source.at += len(found)
                yield from self._grammar.inline[found].read(source, calls)
                continue
            if found in self._grammar.reserved:
                source.at += len(found)
                continue
            if not (yield from self._begins_call(found)):
                calls.think(found)
                source.at += len(found)
                continue
            held: list[str] = []
            if (yield from source.until(closing, held.append)):
                calls.think("".join(held))
                break
            self._calls_of("".join(held))
            return
        source.at += len(found) if found in closing.literals else len((yield from source.ahead(closing)))
        calls.hold_space()
        if not calls.content:
            yield from source.skip_space()

    def _begins_call(self, marker: str) -> Reader[bool]:
        """Tell whether what follows a marker in reasoning looks like a call, not like prose about one."""
        source = self._source
        size = len(marker) + 64
        while len(source.text) - source.at < size and not source.closed:
            yield
        following = source.text[source.at + len(marker) : source.at + size]
        if not marker.isascii() or marker.startswith(("<|", "[")) or self._grammar.markers[marker].keeps:
            return True
        return bool(BODY.match(following)) or following.lstrip().startswith(tuple(self._toolbox.schemas))

    def _calls_of(self, text: str) -> None:
        """Read the calls with which a text ends its reasoning; what is no call there is reasoning."""
        calls = self._calls
        begin, content, reasoning = len(self._chunks), calls.content, calls.reasoning
        calls.content, calls.reasoning = GrowingText(), GrowingText()
        self._read_again(text)
        calls.content, calls.reasoning = content, reasoning
        for at in range(begin, len(self._chunks)):
            if self._chunks[at].content:
                self._chunks[at] = Chunk("", self._chunks[at].content)
            reasoning.write(self._chunks[at].reasoning)

    def _read_again(self, text: str) -> None:
        """Read a text that is already whole as content."""
        source, self._source = self._source, Source(text, closed=True)
        for _ in self._content():
            pass
        self._source = source

    def _reconsider_reasoning(self) -> None:
        """Look for calls in the reasoning where the answer itself is empty."""
        calls = self._calls
        if calls.made or self._is_answered or not self._toolbox or calls.problems or calls.content.getvalue().strip():
            return
        text = calls.reasoning.getvalue()
        if not any(marker in text for marker in self._grammar.call_markers):
            return
        begin = len(self._chunks)
        self._read_again(text)
        calls.content = GrowingText()
        self._chunks[begin:] = [chunk for chunk in self._chunks[begin:] if not chunk.content]
        calls.problems.clear()
        if calls.made:
            calls.dropped("calls_in_reasoning", "The calls stood in the reasoning")

    def _call(self, marker: Marker) -> Reader[None]:
        """Hand over to a marker's reader; give back as content what it refuses."""
        source, calls = self._source, self._calls
        made = len(calls.made)
        source.mark()
        source.at += 0 if marker.keeps else len(marker.text)
        try:
            yield from marker.read(source, calls)
            calls.is_over = calls.is_over or (marker.final and len(calls.made) > made)
            if len(calls.made) == made and not marker.channel:
                if source.marked() == marker.text:
                    calls.say(marker.text)
                else:
                    calls.dropped("tool_call_empty", f"A block without a call was left out: {source.marked()[:SHOWN]}")
        except NotACall:
            self._give_back(marker)
        except UnofferedCall as refusal:
            calls.dropped("unoffered_tool", f"Left as text: {refusal}", self._give_back(marker))
        except MalformedCall as refusal:
            calls.abandon()
            raw = self._give_back(marker)
            calls.dropped("tool_call_unparsed", f"A call could not be read and was left as text: {refusal}", raw)
        except TruncatedCall:
            self._cut_off(marker)
        finally:
            source.unmark()

    def _give_back(self, marker: Marker) -> str:
        """Pass on as content what a reader read, and give it."""
        self._calls.abandon()
        text = self._source.marked()
        self._left_markup = self._left_markup or len(marker.text) > 1
        if not text:
            source = self._source
            text = (
                marker.text
                if source.text.startswith(marker.text, source.at)
                else source.text[source.at : source.at + 1]
            )
            source.at += len(text)
        self._calls.say(text)
        return text

    def _cut_off(self, marker: Marker) -> None:
        """Report a call whose end is missing; a marker with nothing behind it is only talked about."""
        source, calls = self._source, self._calls
        source.at = len(source.text)
        text = source.marked()
        name = calls.abandon()
        if text.strip() == marker.text and marker.text.startswith("<") and marker.text[1].isalpha():
            calls.say(text)
        elif text.strip():
            what = f"The call of {name!r}" if name else "A call"
            calls.dropped("tool_call_incomplete", f"{what} is cut off: {text[:SHOWN]}", text)


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
