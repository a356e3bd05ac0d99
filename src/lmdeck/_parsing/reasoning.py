"""Read reasoning, and the calls that it may contain.

Reasoning is between tags, in messages, or in a separate channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from weakref import proxy

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.code_spans import CodeSpans
from lmdeck._parsing.dialects.dialect import Marker, ReasoningTags
from lmdeck._parsing.grammar import NO_ENDS, Grammar
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import Reader, Source, Stops, stops
from lmdeck._parsing.unread_calls import unread_call_markup

BODY = late_pattern(r"\s*(?:[\[{]|<(?:function|invoke|tool_call>|\||｜|arg_key)|call:|functions?[.<]|$)")
LINE_LOOKAHEAD = 80


class ReasoningScanner(ABC):
    """A scanner of the reasoning of one answer, and the dialects known to be spoken in it."""

    __slots__ = (
        "__weakref__", "_reasoning_spans", "_spoken", "_unopened", "grammar", "had_reasoning", "is_answered", "sink", "source",
        "tools",
    )  # fmt: skip

    _reasoning_spans: CodeSpans

    def __init__(self, tools: OfferedTools, grammar: Grammar, new_id: Callable[[], str]) -> None:
        self.tools = tools
        self.grammar = grammar
        self.source = Source()
        self.sink = Sink(tools, new_id, self.source)
        self.sink.scanner = proxy(self)  # so that an answer is freed without the collector
        self.is_answered = False
        self.had_reasoning = False
        self._spoken = grammar.spoken
        self._unopened: ReasoningTags | None = None  # reasoning that ends before the first call but was not opened

    @abstractmethod
    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""

    @abstractmethod
    def _scan_content(self, ends: Stops = NO_ENDS) -> Reader[str]:
        """Read text up to one of `ends` and return that, unread; `""` at the end of all text."""

    def _is_active(self, literal: str) -> bool:
        """Whether a literal has an effect.

        Words of ordinary text do only if their dialect is known to be spoken.
        """
        return literal not in self.grammar.words or self._is_spoken(literal)

    def _is_spoken(self, literal: str) -> bool:
        """Whether a dialect with this literal is known to be spoken."""
        return not self._spoken.isdisjoint(self.grammar.speakers.get(literal, ()))

    def dialect_of(self, marker: Marker, source: Source) -> str:
        """Return the name of the dialect of the call that is being read."""
        return self.grammar.dialect_of(marker, source.marked(), self._spoken)

    def _note_spoken(self, literal: str) -> None:
        """Record that the dialects of a special token are spoken."""
        if literal in self.grammar.special:
            self._spoken |= self.grammar.speakers[literal]

    def read_reasoning(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        self.source.unmark()
        found = yield from self._scan_reasoning(ends)
        self.source.mark()
        return found

    def _reasoning(self, tags: ReasoningTags) -> Reader[None]:
        """Read reasoning up to its end tag, to a call that ends it, or to the end of the text."""
        source, sink = self.source, self.sink
        self.had_reasoning = True
        self._note_spoken(tags.open)
        while (yield from source.skip_space()) and (yield from source.take(stops(tags.open))):
            continue
        if tags.label:
            yield from source.take(stops(tags.label))
            yield from source.skip_space()
        closing = stops(tags.close, *tags.also_closes, *_spaced(tags.close))
        completed = len(sink.completed)
        found = yield from self._scan_reasoning(closing)
        if not found:
            if len(sink.completed) == completed:
                sink.report("reasoning_unclosed", "The reasoning has no end")
            return
        source.at += len(found)
        sink.defer_space()

    def read_channel(self, source: Source, is_answered: Callable[[], bool]) -> Reader[None]:
        """Read reasoning that arrives separately; tags around it are markup."""
        grammar = self.grammar
        yield from source.skip_space()
        yield from source.take(grammar.opening)
        ends = stops(*grammar.closers)
        while found := (yield from self._scan_reasoning(ends, is_answered)):
            source.at += len(found)

    def _scan_reasoning(self, closing: Stops, is_answered: Callable[[], bool] = lambda: False) -> Reader[str]:
        """Read reasoning up to one of its possible ends and return that, unread.

        It is `""` if a call or the end of the text ends the reasoning. Text like a call is one if no end and no answer follow.
        """
        source, sink, grammar = self.source, self.sink, self.grammar
        if not sink.reasoning:
            sink.reasoning_start = source.place
        self._reasoning_spans = CodeSpans()
        wanted = grammar.reasoning_scan(closing)
        while True:
            found = yield from source.until(wanted, self._emit_reasoning)
            if not found:
                return ""
            if found in closing.literals:
                if not (yield from self._is_quoted(found)):
                    return found
            elif found in grammar.reserved:
                source.at += len(found)
                continue
            elif found in grammar.inline and self._is_active(found):
                source.at += len(found)
                yield from grammar.inline[found].read(source, sink)
                continue
            elif found not in grammar.inline and (yield from self._begins_call(found)):
                place, held = source.place, list[str]()
                end = yield from source.until(closing, held.append)
                if not end and not is_answered():
                    self._read_final_calls("".join(held), place)
                    return ""
                self._emit_reasoning("".join(held))
                continue
            self._emit_reasoning(found)
            source.at += len(found)

    def _emit_reasoning(self, text: str) -> None:
        self.sink.emit_reasoning(text)
        self._reasoning_spans.feed(text)

    def _is_quoted(self, tag: str) -> Reader[bool]:
        """Whether an end tag is only mentioned, in backticks that are closed on the same line."""
        source = self.source
        if not self._reasoning_spans.inside_backticks():
            return False
        while True:
            begin = source.at + len(tag)
            line, newline, _ = source.text[begin : begin + LINE_LOOKAHEAD].partition("\n")
            if "`" in line:
                return True
            if newline or source.closed or len(line) >= LINE_LOOKAHEAD:
                return False
            yield

    def _begins_call(self, marker: str) -> Reader[bool]:
        """Whether the text after a marker in reasoning looks like a call, not like prose about one."""
        source = self.source
        size = len(marker) + 64
        while len(source.text) - source.at < size and not source.closed:
            yield
        following = source.text[source.at + len(marker) : source.at + size]
        if not marker.isascii() or marker.startswith(("<|", "[")) or self.grammar.markers[marker].keeps:
            return True
        return bool(BODY.match(following)) or following.lstrip().startswith(tuple(self.tools.schemas))

    def _read_final_calls(self, text: str, place: int) -> None:
        """Read the calls at the end of the reasoning; other text there is reasoning."""
        self._read_again(Source(text, closed=True, base=place), self.sink.write_reasoning)

    def _read_again(self, source: Source, redirect: Callable[[str], object]) -> None:
        """Read the calls in a complete text.

        Other text is passed to `redirect`, unless text is redirected already.
        """
        sink, outer = self.sink, self.source
        redirected, code_spans = sink.redirect, sink.code_spans
        sink.redirect, sink.code_spans = redirected or redirect, CodeSpans()
        self.source = sink.source = source
        next(self._scan_content(), None)  # the text is complete: it never waits
        self.source = sink.source = outer
        sink.redirect, sink.code_spans = redirected, code_spans

    def _reconsider_reasoning(self) -> None:
        """Look for calls in the reasoning if the answer itself is empty."""
        sink = self.sink
        if sink.completed or self.is_answered or not self.tools or sink.problems or sink.content.getvalue().strip():
            return
        text = sink.reasoning.getvalue()
        if not any(marker in text for marker in self.grammar.call_markers):
            return
        self._read_again(Source(text, closed=True, base=sink.reasoning_start), lambda _: None)
        sink.problems.clear()
        if sink.completed:
            sink.report("calls_in_reasoning", "The calls were in the reasoning")
        elif markup := unread_call_markup(text, self.tools.schemas):
            sink.report(
                "tool_call_unparsed",
                f"The reasoning ends without an answer, and no call in it could be read: {markup!r}",
            )

    def _note_unopened(self, marker: Marker) -> None:
        """Record a lone reasoning end tag before the first call."""
        self._unopened = self.grammar.opened_by_template(self.sink.text_so_far + marker.text)

    def _report_unopened_reasoning(self, content: str) -> None:
        """Report a lone reasoning end tag at the end of a line, or before a call.

        The content before it was reasoning, but has been emitted.
        """
        tag = self._unopened or self.grammar.opened_by_template(content)
        if tag is not None:
            self.sink.report_unopened(tag.close)


def _spaced(tag: str) -> tuple[str, ...]:
    """Return an end tag with a space before its bracket, as some models misspell it."""
    return (f"{tag[:-1]} >",) if tag.startswith("</") and tag.endswith(">") else ()
