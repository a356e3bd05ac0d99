"""The scanner of a model's text: it finds the markers and runs the reader of each.

It looks for all markers at once. It holds back only text that may still become a marker. Text that a reader refuses becomes
content, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import proxy

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Marker
from lmdeck._parsing.end_tags import drop_end_tag, skip_end_tags
from lmdeck._parsing.grammar import NO_ENDS, Grammar, is_special
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.reasoning import ReasoningScanner
from lmdeck._parsing.source import (
    MalformedCall,
    NotACall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
)
from lmdeck._parsing.unmarked_json import AFTER_LIST_OPENER, LIST_OPENERS, starts_unmarked_json
from lmdeck._parsing.unread_calls import unread_call_markup

QUOTED_CHARS = 2000
ELEMENT = late_pattern(r"\s*<(?:parameter|param|arg_|invoke|function|\||｜)")
BODY_LENGTH = 16
WORD_TAG = late_pattern(r"<[A-Za-z]")
REFUSED = frozenset({"tool_call_unparsed", "tool_call_incomplete", "unoffered_tool", "markup_kept"})
Search = Callable[[str], object]


class _LineTracker:
    """An emitter that tracks whether its text ends at the start of a line.

    Other tokens count there.

    A closure would take four times the memory, in each open stream.
    """

    __slots__ = ("_emit", "_scanner", "_search", "_source")

    def __init__(self, scanner: Scanner, search: Search, emit: Callable[[str], None]) -> None:
        self._scanner = scanner
        self._source = scanner.source
        self._search = search
        self._emit = emit

    @property
    def stop(self) -> Search:
        """The function that finds the next token."""
        return self._search_line if self._scanner.is_line_start else self._search

    def _search_line(self, text: str) -> object:
        """Find the next token in a text at the start of a line."""
        return self._scanner.grammar.begins_start(text) or self._search(text)

    def emit(self, text: str) -> None:
        """Emit text."""
        self._emit(text)
        if "\n" in text or self._scanner.is_line_start:
            rest = text[text.rfind("\n") + 1 :]
            self._scanner.is_line_start = not rest or rest.isspace()
            self._source.stop = self.stop


class Scanner(ReasoningScanner):
    """A scanner of one answer: its content, the bodies of its messages and its reasoning."""

    __slots__ = ("_has_unread_markup", "_lone_close", "is_line_start")

    def __init__(self, tools: OfferedTools, grammar: Grammar, new_id: Callable[[], str]) -> None:
        super().__init__(tools, grammar, new_id)
        self._has_unread_markup = False
        # A dropped end tag of reasoning, and the length of the content before it.
        self._lone_close: tuple[int, str] | None = None
        self.is_line_start = True

    def run(self, prefix: str) -> Reader[None]:
        """Read an answer; `prefix` is the part of it that the template wrote."""
        if prefix:
            yield from self._opened_by(prefix)
        yield from self._scan_content()
        self.sink.end()
        self._reconsider_reasoning()
        self.report_unread_call()
        self._report_unopened_reasoning(self._whole_content())

    def _whole_content(self) -> str:
        """Return the content with the first end tag of reasoning that was dropped."""
        content = self.sink.content.getvalue()
        at, close = self._lone_close or (0, "")
        return content if close in content else content[:at] + close + content[at:]

    def report_unread_call(self) -> None:
        """Report markup of a call in the content, unless another problem covers it."""
        sink = self.sink
        if not self.tools or any(problem.code in REFUSED for problem in sink.problems):
            return
        if markup := unread_call_markup(sink.content.getvalue(), self.tools.schemas):
            sink.report(
                "tool_call_unparsed", f"Markup of a call was left as text because no call could be read: {markup!r}"
            )

    def _opened_by(self, prefix: str) -> Reader[None]:
        """Read the part of the answer that the template wrote."""
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
        opened = prefix[last_message:] if last_message >= 0 else ""
        opened = opened or next((text for text in grammar.call_markers if prefix.rstrip().endswith(text)), "")
        opened = opened or next((text for text in grammar.starts if len(text) > 1 and prefix.endswith(text)), "")
        self.source = self.sink.source = Source(opened, base=-len(opened))
        self.sink.template = opened
        self._spoken |= frozenset().union(
            *(names for text, names in grammar.speakers.items() if opened and opened.startswith(text))
        )

    def _scan_content(self, ends: Stops = NO_ENDS) -> Reader[str]:
        """Read text up to one of `ends` and return that, unread; `""` at the end of all text."""
        sink = self.sink
        while True:
            wanted = self.grammar.scan(ends, sink.open_block)
            if sink.is_at_start and (yield from self._read_opening(ends)):
                continue
            if (yield from self._read_start_marker(ends)):
                continue
            token = yield from self._scan_text(wanted)
            if not token or token in ends.literals:
                return token
            if token in sink.open_block and not sink.code_spans.inside_code(token):
                sink.open_block = ()
                drop_end_tag(self.source, sink, token)
            elif token[0] != "\n":
                yield from self._read_token(token)

    def _read_opening(self, ends: Stops) -> Reader[bool]:
        """Read white space and reasoning before any content; return whether there was reasoning."""
        source, grammar = self.source, self.grammar
        is_new_line = yield from source.pass_space(self.sink.emit_content)
        found = yield from source.ahead(grammar.opening)
        if not found or found in ends.literals:
            return False
        if found in grammar.openers:
            is_glued = self.had_reasoning and not is_new_line
            if (is_glued and found not in grammar.anywhere) or not self._is_active(found):
                return False
            source.at += len(found)
            yield from self._reasoning(grammar.openers[found])
        else:
            source.at += len(found)
            self.had_reasoning = True
        return True

    def _read_start_marker(self, ends: Stops) -> Reader[bool]:
        """Read a marker that counts only at the start of a line; return whether there was one."""
        source, grammar, sink = self.source, self.grammar, self.sink
        if not grammar.begins_start(source.text, source.at) or not sink.code_spans.is_line_start:
            return False
        yield from source.pass_space(sink.emit_content)
        found = yield from source.ahead(grammar.start_tokens)
        if not found or not self._is_active(found) or sink.code_spans.inside_code():
            return False
        if ends.literals and grammar.starts[found].channel:
            return False
        if found in grammar.begins and not (yield from starts_unmarked_json(source, grammar.bare, grammar.is_known)):
            return False
        yield from self._call(grammar.starts[found])
        return True

    def _scan_text(self, wanted: Stops) -> Reader[str]:
        """Emit text up to the next token and return the token, unread; `""` at the end.

        A line end before a possible start marker is also a token, but is emitted.
        """
        source, emit_content = self.source, self.sink.emit_content
        while True:
            text, at = source.text, source.at
            end, token = wanted.find(text, at, closed=source.closed)
            if token[:1] == "\n":
                end += len(token)
            if end > at:
                emit_content(text[at:end])
                source.at = end
            if token in LIST_OPENERS and not (yield from self._begins_list(token)):
                continue
            if token or source.closed:
                return token
            source.wait_for(*self._awaited(wanted.beginning.search, text[at:end]))
            yield
            source.end_wait()
            if self.is_line_start and self.grammar.begins_start(source.text):
                return "\n"

    def _begins_list(self, opener: str) -> Reader[bool]:
        """Whether a list of calls may begin here; if not, the colon is emitted as text."""
        source, sink = self.source, self.sink
        while source.at + len(opener) == len(source.text) and not source.closed:
            yield
        if not sink.code_spans.follows_quote and AFTER_LIST_OPENER.match(source.text, source.at + len(opener)):
            return True
        source.at += 1
        sink.emit_content(":")
        return False

    def _awaited(self, search: Search, emitted: str) -> tuple[Search, Callable[[str], None]]:
        """Return the search for the next token, and the function that emits arriving text before it."""
        sink = self.sink
        emit_flowing = sink.emit_flowing if sink.is_flowing else sink.emit_content
        if not self.grammar.starts:
            self.is_line_start = False
            return search, emit_flowing
        tail = emitted[emitted.rfind("\n") + 1 :]
        self.is_line_start = sink.code_spans.is_line_start if not tail or tail.isspace() else False
        lines = _LineTracker(self, search, emit_flowing)
        return lines.stop, lines.emit

    def _read_token(self, token: str) -> Reader[None]:
        """Read what a token in the text starts."""
        source, grammar, sink = self.source, self.grammar, self.sink
        if not self._is_active(token) or sink.code_spans.inside_code(token):
            source.at += len(token)
            sink.emit_content(token)
        elif token in grammar.markers:
            yield from self._call(grammar.markers[token])
        elif token in grammar.anywhere and not sink.is_redirected and (yield from self._opens_reasoning(token)):
            place, is_expected = source.place, self._expects_markup(token)
            source.at += len(token)
            yield from self._reasoning(grammar.anywhere[token])
            self._report_unexpected(token, place, is_expected=is_expected)
        else:
            self._drop_token(token)

    def _expects_markup(self, token: str) -> bool:
        """Whether a template's markup is expected here.

        It is at the start, and if its dialect is known to be spoken.
        """
        return self.sink.is_at_start or self.sink.is_redirected or self._is_spoken(token)

    def _report_unexpected(self, token: str, begin: int, *, is_expected: bool) -> None:
        """Report markup of messages or reasoning inside a text, which may only be an example of it."""
        if not is_expected:
            detail = f"{token} began a message or reasoning inside the text"
            self.sink.report("markup_in_text", detail, span=(begin, self.source.place))

    def _opens_reasoning(self, token: str) -> Reader[bool]:
        """Whether a tag opens reasoning.

        On a line of text, unless its dialect is known to be spoken, it does only if reasoning follows without a space: in prose
        that mentions it, a space, a quotation mark or a bracket is next to it.
        """
        source, spans = self.source, self.sink.code_spans
        if spans.is_line_start or self._is_spoken(token):
            return True
        while source.at + len(token) >= len(source.text) and not source.closed:
            yield
        end = source.at + len(token)
        following = source.text[end : end + 1]
        return following not in (" ", ",", ".") if spans.follows_word else spans.follows_space and following.isalnum()

    def _drop_token(self, token: str) -> None:
        """Drop a token that is not part of the answer.

        Tokens are dropped at the start and the end of the answer; special tokens also inside it if tools are offered, which is
        reported unless their dialect is known to be spoken.
        """
        grammar, sink = self.grammar, self.sink
        self.source.at += len(token)
        is_end_tag = token not in grammar.drops and token not in grammar.anywhere
        is_known = self._is_spoken(token) and token not in grammar.words
        if token in grammar.closers and self._lone_close is None and not sink.is_redirected:
            self._lone_close = len(sink.content.getvalue()), token
        if sink.is_at_start or (is_known and not self._has_unread_markup):
            self._note_spoken(token)
            sink.defer_space()
        elif self._has_unread_markup and not is_end_tag:
            sink.emit_content(token)
        elif is_special(token) and grammar.has_calls:
            sink.drop_token(token)
        elif is_special(token) or not is_end_tag:
            sink.defer_token(token)
        else:
            sink.emit_content(token)

    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        self.sink.end_block(self.source.place)
        self.sink.template = ""  # the template's text was the header
        self.source.unmark()
        found = yield from self._scan_content(ends)
        self.source.mark()
        return found

    def _call(self, marker: Marker) -> Reader[None]:
        """Run the reader of a marker; text that it refuses becomes content."""
        source, sink = self.source, self.sink
        completed, begin = len(sink.completed), source.place
        reported, is_expected = len(sink.problems), not marker.channel or self._expects_markup(marker.text)
        scanner, outer = proxy(self), sink.dialect  # a proxy, so that an answer is freed without the collector
        sink.dialect = lambda: scanner.dialect_of(marker, source)
        source.mark()
        sink.begin_block(begin)
        sink.open_block = ()
        source.at += 0 if marker.keeps else len(marker.text)
        try:
            yield from marker.read(source, sink)
            sink.end_block(source.place)
            sink.template = ""
            if len(sink.completed) > completed and len(speakers := self.grammar.speakers.get(marker.text, ())) == 1:
                self._spoken |= set(speakers)
            elif len(sink.completed) > completed or marker.channel:
                self._note_spoken(marker.text)
                if len(sink.completed) == completed and len(sink.problems) == reported:
                    sink.dialect = outer
                    self._report_unexpected(marker.text, begin, is_expected=is_expected)
            else:
                detail = f"A block without a call was left out: {source.marked()[:QUOTED_CHARS]}"
                sink.report("tool_call_empty", detail, span=(begin, source.place))
        except NotACall:
            is_markup = yield from self._is_markup(marker)
            text, span = self._emit_as_text(marker)
            if is_markup:
                sink.report(
                    "markup_kept", f"{marker.text!r} was left as text because no readable call follows", text, span
                )
        except MalformedCall as refusal:
            sink.cancel()
            sink.refuse(refusal, *self._emit_as_text(marker))
        except TruncatedCall as cut:
            self._report_cut_off(marker, str(cut))
        finally:
            source.unmark()
        if len(sink.completed) > completed == 0:
            self._note_unopened(marker)
        if len(sink.completed) > completed:
            yield from skip_end_tags(source, sink, self.grammar.call_markers)
        sink.dialect = outer

    def _is_markup(self, marker: Marker) -> Reader[bool]:
        """Whether a marker without a call is a special token, or a tag before call-like text."""
        source, text = self.source, marker.text
        if not self.tools or marker.at_start or not text.startswith("<"):
            return bool(self.tools) and is_special(text)
        while len(source.text) - source.at < BODY_LENGTH and not source.closed:
            yield
        following = (source.marked() + source.text[source.at : source.at + BODY_LENGTH]).removeprefix(text)
        return is_special(text) or ELEMENT.match(following) is not None

    def _emit_as_text(self, marker: Marker) -> tuple[str, tuple[int, int]]:
        """Emit what a reader has read as content; return its text and its span in the source."""
        self.sink.cancel()
        begin, _ = self.source.marked_span()
        self.sink.end_block(begin)
        text = self.source.marked()
        is_punctuation = len(marker.text) == 1 or marker.text in LIST_OPENERS
        self._has_unread_markup = self._has_unread_markup or not is_punctuation
        if not text:
            source = self.source
            text = (
                marker.text
                if source.text.startswith(marker.text, source.at)
                else source.text[source.at : source.at + 1]
            )
            source.at += len(text)
        self.sink.emit_content(text)
        return text, (begin, self.source.place)

    def _report_cut_off(self, marker: Marker, place: str) -> None:
        """Report a call that is cut off; a marker with nothing after it is only mentioned."""
        source, sink = self.source, self.sink
        source.at = len(source.text)
        text = source.marked()
        name = sink.cancel()
        sink.end_block(source.marked_span()[0])
        follows_call = bool(sink.completed) and not sink.is_flowing
        if text.strip() == marker.text and WORD_TAG.match(text) and not follows_call:
            sink.emit_content(text)
        else:
            what = f"The call of {name!r}" if name else "A call"
            detail = f"{' '.join(filter(None, (what, 'is cut off', place)))}: {text[:QUOTED_CHARS]}"
            sink.report("tool_call_incomplete", detail, text, source.marked_span())
