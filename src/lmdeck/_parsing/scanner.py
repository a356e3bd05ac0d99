"""The machine that reads a model's text: it scans for all begin markers at once and hands over to the marker's reader.

It holds back only what may still become a marker. What a reader refuses is given back as content, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmdeck._parsing.dialects.dialect import Marker, ReasoningTags
from lmdeck._parsing.grammar import Grammar
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.sink import Calls
from lmdeck._parsing.source import (
    NON_SPACE,
    MalformedCall,
    NotACall,
    Reader,
    Source,
    TruncatedCall,
    stops,
)
from lmdeck._parsing.text_buffer import GrowingText
from lmdeck._parsing.unmarked_json import begins_bare
from lmdeck.events import Chunk
from lmdeck.messages import Problem

__all__ = ["Reading"]

SHOWN = 2000
BODY = re.compile(r"\s*(?:[\[{]|<(?:function|invoke|tool_call>|\||｜|arg_key)|call:|functions?[.<]|$)")


class Reading:
    """An answer on its way: what was read of it, and what is known of where it stands."""

    def __init__(self, toolbox: Toolbox, grammar: Grammar, new_id: Callable[[], str]) -> None:
        self.toolbox = toolbox
        self.grammar = grammar
        self.calls = Calls(toolbox, new_id, [])
        self.source = Source()
        self.is_answered = False
        self.had_reasoning = False
        self._left_markup = False
        self._is_line_start = True

    def run(self, prefix: str) -> Reader[None]:
        """Read an answer, `prefix` being what the template had written of it."""
        if prefix:
            yield from self._opened_by(prefix)
        yield from self._content()
        self.calls.end()
        self._reconsider_reasoning()

    def _opened_by(self, prefix: str) -> Reader[None]:
        """Read what the template had already written."""
        grammar = self.grammar
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
            self.source.feed(prefix[last_message:])
            return
        opened = next((text for text in grammar.call_markers if prefix.rstrip().endswith(text)), "")
        if opened:
            self.source.feed(opened)
            return
        begun = next((text for text in grammar.starts if len(text) > 1 and prefix.endswith(text)), "")
        self.source.feed(begun)

    def _content(self) -> Reader[None]:
        """Read the answer's text up to its end."""
        calls = self.calls
        while True:
            if not calls.content and (yield from self._reads_opening()):
                continue
            if (yield from self._reads_start_marker()):
                continue
            token = yield from self._passes_text()
            if not token:
                return
            if token[0] != "\n":
                yield from self._token(token)

    def _reads_opening(self) -> Reader[bool]:
        """Read what stands before any content: white space, and reasoning."""
        source, grammar = self.source, self.grammar
        yield from self._pass_space()
        found = yield from source.ahead(grammar.opening)
        if found in grammar.openers and not (self.had_reasoning and found not in grammar.anywhere):
            source.at += len(found)
            yield from self._reasoning(grammar.openers[found])
            return True
        if found in grammar.closers:
            source.at += len(found)
            self.had_reasoning = True
            return True
        return False

    def _reads_start_marker(self) -> Reader[bool]:
        """Read a marker that counts only at the start of a line."""
        source, grammar, calls = self.source, self.grammar, self.calls
        if grammar.begins_start(source.text, source.at) is None or (calls.content and not calls.prose.is_line_start):
            return False
        yield from self._pass_space()
        found = yield from source.ahead(grammar.start_tokens)
        if not found or calls.prose.shows_code():
            return False
        if found in grammar.bare and not (yield from begins_bare(source, grammar.bare)):
            return False
        yield from self._call(grammar.starts[found])
        return True

    def _pass_space(self) -> Reader[None]:
        source = self.source
        while True:
            begin = source.at
            found = NON_SPACE.search(source.text, begin)
            end = found.start() if found else len(source.text)
            if end > begin:
                source.at = end
                self.calls.say(source.text[begin:end])
            if found or source.closed:
                return
            yield

    def _passes_text(self) -> Reader[str]:
        """Pass text on up to the next token and give that, unread; `""` at the end.

        A line end behind which a start marker may stand is a token, too, but is passed on.
        """
        source, say = self.source, self.calls.say
        tokens = self.grammar.tokens
        while True:
            text, at = source.text, source.at
            end, token = tokens.find(text, at, closed=source.closed)
            if token[:1] == "\n":
                end += len(token)
            if end > at:
                say(text[at:end])
                source.at = end
            if token or source.closed:
                return token
            if end < len(text):
                yield
            else:
                yield from self._sleep()
                if self._is_line_start and self.grammar.begins_start(source.text):
                    return "\n"

    def _sleep(self) -> Reader[None]:
        """Wait for a token; what comes before is content."""
        grammar, calls = self.grammar, self.calls
        if grammar.tokens is grammar.tokens_on_new_line:
            yield from self.source.sleep(grammar.tokens.begun.search, calls.say)
            return
        self._is_line_start = calls.prose.is_line_start
        tokens = grammar.tokens_on_new_line if self._is_line_start else grammar.tokens
        yield from self.source.sleep(tokens.begun.search, self._say_lines)

    def _say_lines(self, text: str) -> None:
        """Pass content on and follow whether a line begins where it ends."""
        self.calls.say(text)
        newline = text.rfind("\n") + 1
        if newline or self._is_line_start:
            was, rest = self._is_line_start, text[newline:]
            self._is_line_start = is_start = (not rest or rest.isspace()) and (bool(newline) or was)
            if is_start != was:
                grammar = self.grammar
                self.source.stop = (grammar.tokens_on_new_line if is_start else grammar.tokens).begun.search

    def _token(self, token: str) -> Reader[None]:
        """Read what a token in the text begins."""
        source, grammar, calls = self.source, self.grammar, self.calls
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
        source, calls = self.source, self.calls
        self.had_reasoning = True
        if tags.label:
            yield from source.take(stops(tags.label + "\n"))
        yield from source.skip_space()
        closing = stops(tags.close, *tags.also_closes)
        markers = self.grammar.call_markers if self.toolbox else ()
        wanted = stops(*closing.literals, *self.grammar.inline, *self.grammar.reserved, *markers)
        while True:
            found = yield from source.until(wanted, calls.think)
            if not found:
                calls.problems.append(Problem("reasoning_unclosed", "The reasoning has no end."))
                return
            if found in closing.literals:
                break
            if found in self.grammar.inline:
                source.at += len(found)
                yield from self.grammar.inline[found].read(source, calls)
                continue
            if found in self.grammar.reserved:
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
        source = self.source
        size = len(marker) + 64
        while len(source.text) - source.at < size and not source.closed:
            yield
        following = source.text[source.at + len(marker) : source.at + size]
        if not marker.isascii() or marker.startswith(("<|", "[")) or self.grammar.markers[marker].keeps:
            return True
        return bool(BODY.match(following)) or following.lstrip().startswith(tuple(self.toolbox.schemas))

    def _calls_of(self, text: str) -> None:
        """Read the calls with which a text ends its reasoning; what is no call there is reasoning."""
        calls = self.calls
        begin, content, reasoning = len(self.calls.chunks), calls.content, calls.reasoning
        calls.content, calls.reasoning = GrowingText(), GrowingText()
        self._read_again(text)
        calls.content, calls.reasoning = content, reasoning
        for at in range(begin, len(self.calls.chunks)):
            if self.calls.chunks[at].content:
                self.calls.chunks[at] = Chunk("", self.calls.chunks[at].content)
            reasoning.write(self.calls.chunks[at].reasoning)

    def _read_again(self, text: str) -> None:
        """Read a text that is already whole as content."""
        source, self.source = self.source, Source(text, closed=True)
        for _ in self._content():
            pass
        self.source = source

    def _reconsider_reasoning(self) -> None:
        """Look for calls in the reasoning where the answer itself is empty."""
        calls = self.calls
        if calls.made or self.is_answered or not self.toolbox or calls.problems or calls.content.getvalue().strip():
            return
        text = calls.reasoning.getvalue()
        if not any(marker in text for marker in self.grammar.call_markers):
            return
        begin = len(self.calls.chunks)
        self._read_again(text)
        calls.content = GrowingText()
        self.calls.chunks[begin:] = [chunk for chunk in self.calls.chunks[begin:] if not chunk.content]
        calls.problems.clear()
        if calls.made:
            calls.dropped("calls_in_reasoning", "The calls stood in the reasoning")

    def _call(self, marker: Marker) -> Reader[None]:
        """Hand over to a marker's reader; give back as content what it refuses."""
        source, calls = self.source, self.calls
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
        except MalformedCall as refusal:
            calls.abandon()
            calls.refuse(refusal, self._give_back(marker))
        except TruncatedCall:
            self._cut_off(marker)
        finally:
            source.unmark()

    def _give_back(self, marker: Marker) -> str:
        """Pass on as content what a reader read, and give it."""
        self.calls.abandon()
        text = self.source.marked()
        self._left_markup = self._left_markup or len(marker.text) > 1
        if not text:
            source = self.source
            text = (
                marker.text
                if source.text.startswith(marker.text, source.at)
                else source.text[source.at : source.at + 1]
            )
            source.at += len(text)
        self.calls.say(text)
        return text

    def _cut_off(self, marker: Marker) -> None:
        """Report a call whose end is missing; a marker with nothing behind it is only talked about."""
        source, calls = self.source, self.calls
        source.at = len(source.text)
        text = source.marked()
        name = calls.abandon()
        if text.strip() == marker.text and marker.text.startswith("<") and marker.text[1].isalpha():
            calls.say(text)
        elif text.strip():
            what = f"The call of {name!r}" if name else "A call"
            calls.dropped("tool_call_incomplete", f"{what} is cut off: {text[:SHOWN]}", text)
