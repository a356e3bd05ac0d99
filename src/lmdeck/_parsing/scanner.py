"""The scanner of a model's text: finds the markers and runs the reader of each.

It looks for all markers at once. It holds back only text that may still become a marker. Text that a reader refuses becomes
content, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from weakref import proxy

from lmdeck._parsing.code_spans import CodeSpans
from lmdeck._parsing.dialects.dialect import Marker, ReasoningTags
from lmdeck._parsing.grammar import Grammar, Scan, is_special
from lmdeck._parsing.leftovers import unread_call_markup
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import (
    NON_SPACE,
    MalformedCall,
    NotACall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
    stops,
)
from lmdeck._parsing.unmarked_json import LIST_BEHIND, LIST_OPENERS, starts_unmarked_json

SHOWN = 2000
BODY = re.compile(r"\s*(?:[\[{]|<(?:function|invoke|tool_call>|\||｜|arg_key)|call:|functions?[.<]|$)")
END_OF_CALL = re.compile(
    r"(?:\]<\]minimax\[>\[)?</(?=[^<>\n]*?(?:tool|call|function|invoke|action|param))[^<>\n]{1,60}>"
    r"|<(?=[^<>\n]*?(?:tool|call|action|function))(?:[|｜][^<>\n]{0,40}end[^<>\n]{0,40}[|｜]|[a-z_]{1,40}\|)>"
    r"|\[(?:/|END_)(?:TOOL|FUNCTION)[A-Z_]{0,20}\]",
    re.IGNORECASE,
)
END_OF_CALL_BEGUN = re.compile(
    r"(?:\]<\]minimax\[>\[)?<[^<>\n]{0,80}\Z|\](?:<(?:\](?:m[a-z]*(?:\[(?:>\[?)?)?)?)?)?\Z|\[[A-Z_/]{0,30}\Z|`{1,2}\Z|>{1,2}\Z"
)
CUT_LENGTH = 80
CUT_TAG = re.compile(r"\]<[\]\[>a-z]*\Z|(?:\]<\]minimax\[>\[)?[<\[][/|｜]?[\w:|｜▁ ]{0,40}\Z|`{1,2}\Z|>{1,2}\Z")
ELEMENT = re.compile(r"\s*<(?:parameter|param|arg_|invoke|function|\||｜)")
BODY_LENGTH = 16
WORD_TAG = re.compile(r"<[A-Za-z]")
NO_ENDS = stops()
REFUSED = frozenset({"tool_call_unparsed", "tool_call_incomplete", "unoffered_tool", "markup_kept"})
QUOTED = 80
LONGEST_THOUGHT = 16_000
"""How long reasoning may be that begins on a line of text."""


class Scanner:
    """A scanner of one answer, of the bodies of its messages and of its reasoning.
    Their text goes to different places.
    """

    __slots__ = (
        "__weakref__", "_is_line_start", "_left_markup", "_reasoning_spans", "_spoken", "grammar", "had_reasoning",
        "is_answered", "sink", "source", "tools",
    )  # fmt: skip

    _reasoning_spans: CodeSpans

    def __init__(self, tools: OfferedTools, grammar: Grammar, new_id: Callable[[], str]) -> None:
        self.tools = tools
        self.grammar = grammar
        self.source = Source()
        self.sink = Sink(tools, new_id, self.source, proxy(self))  # so that an answer is freed without the collector
        self.is_answered = False
        self.had_reasoning = False
        self._spoken = set(grammar.spoken)
        self._left_markup = False
        self._is_line_start = True

    def run(self, prefix: str) -> Reader[None]:
        """Read an answer; `prefix` is the part of it that the template wrote."""
        if prefix:
            yield from self._opened_by(prefix)
        yield from self._scan_content()
        self.sink.end()
        self._reconsider_reasoning()
        self.report_left_over_call()
        self._report_unopened_reasoning()

    def _report_unopened_reasoning(self) -> None:
        """Report a lone reasoning end tag at the end of a line.

        The content before it was reasoning, but had already been emitted.
        """
        tag = self.grammar.opened_by_template(self.sink.content.getvalue())
        if tag is not None:
            self.sink.report(
                "reasoning_unopened",
                f"{tag.close} ends reasoning that nothing opened: the content before it is probably reasoning; "
                "a whole answer, by send(), keeps them apart",
            )

    def pass_plain(self, text: str) -> None:
        """Read a whole answer that is plain text."""
        self.source.base += len(text)
        self.sink.emit_content(text)

    def report_left_over_call(self) -> None:
        """Report markup of a call in the content, unless another problem covers it."""
        sink = self.sink
        if not self.tools or any(problem.code in REFUSED for problem in sink.problems):
            return
        if markup := unread_call_markup(sink.content.getvalue(), self.tools.schemas):
            sink.report(
                "tool_call_unparsed", f"Markup of a call was left as text, because no call could be read: {markup!r}"
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
        self._spoken |= set().union(
            *(names for text, names in grammar.speakers.items() if opened and opened.startswith(text))
        )

    def _scan_content(self, ends: Stops = NO_ENDS) -> Reader[str]:
        """Read text up to one of `ends` and return that, unread; `""` at the end of all text."""
        sink = self.sink
        while True:
            scan = self.grammar.scan(ends, sink.open_block)
            if sink.is_at_start and (yield from self._read_opening(ends)):
                continue
            if (yield from self._read_start_marker(ends)):
                continue
            token = yield from self._scan_text(scan)
            if not token or token in ends.literals:
                return token
            if token in sink.open_block and not sink.code_spans.inside_code(token):
                sink.open_block = ()
                self._drop_end_of_call(token)
            elif token[0] != "\n":
                yield from self._read_token(token)

    def _read_opening(self, ends: Stops) -> Reader[bool]:
        """Read white space and reasoning before any content; whether there was reasoning."""
        source, grammar = self.source, self.grammar
        is_new_line = yield from self._pass_space()
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

    def _is_active(self, literal: str) -> bool:
        """Whether a literal is active.

        One that ordinary text may contain is active only if its dialect is known to be spoken.
        """
        return literal not in self.grammar.words or self._is_spoken(literal)

    def _is_spoken(self, literal: str) -> bool:
        """Whether a dialect with this literal is known to be spoken."""
        return not self._spoken.isdisjoint(self.grammar.speakers.get(literal, ()))

    def _note_spoken(self, literal: str) -> None:
        """Note that the dialects of a special token are spoken."""
        if literal in self.grammar.special:
            self._spoken |= self.grammar.speakers[literal]

    def _read_start_marker(self, ends: Stops) -> Reader[bool]:
        """Read a marker that counts only at the start of a line; no message begins inside a message."""
        source, grammar, sink = self.source, self.grammar, self.sink
        if grammar.begins_start(source.text, source.at) is None or not sink.code_spans.is_line_start:
            return False
        yield from self._pass_space()
        found = yield from source.ahead(grammar.start_tokens)
        if not found or not self._is_active(found) or sink.code_spans.inside_code():
            return False
        if ends.literals and grammar.starts[found].channel:
            return False
        if found in grammar.begins and not (yield from starts_unmarked_json(source, grammar.bare, grammar.is_known)):
            return False
        yield from self._call(grammar.starts[found])
        return True

    def _pass_space(self) -> Reader[bool]:
        """Emit white space; return whether there was a line end in it."""
        source, is_new_line = self.source, False
        while True:
            begin = source.at
            found = NON_SPACE.search(source.text, begin)
            end = found.start() if found else len(source.text)
            if end > begin:
                source.at = end
                is_new_line = is_new_line or "\n" in source.text[begin:end]
                self.sink.emit_content(source.text[begin:end])
            if found or source.closed:
                return is_new_line
            yield

    def _scan_text(self, scan: Scan) -> Reader[str]:
        """Emit text up to the next token and return the token, unread; `""` at the end.

        A line end before a possible start marker is a token, too, but is emitted.
        """
        source, emit_content = self.source, self.sink.emit_content
        while True:
            text, at = source.text, source.at
            end, token = scan.usual.find(text, at, closed=source.closed)
            if token[:1] == "\n":
                end += len(token)
            if end > at:
                emit_content(text[at:end])
                source.at = end
            if token in LIST_OPENERS and not (yield from self._begins_list(token)):
                continue
            if token or source.closed:
                return token
            yield from self._wait(scan, text[at:end])
            if self._is_line_start and self.grammar.begins_start(source.text):
                return "\n"

    def _begins_list(self, opener: str) -> Reader[bool]:
        """Whether a list of calls may begin here; if not, the colon is emitted as text."""
        source, sink = self.source, self.sink
        while source.at + len(opener) == len(source.text) and not source.closed:
            yield
        if not sink.code_spans.follows_quote and LIST_BEHIND.match(source.text, source.at + len(opener)):
            return True
        source.at += 1
        sink.emit_content(":")
        return False

    def _wait(self, scan: Scan, emitted: str) -> Reader[None]:
        """Wait for a token after the emitted text; text before it is emitted as it arrives."""
        sink, source = self.sink, self.source
        emit_flowing = sink.emit_flowing if sink.is_flowing else sink.emit_content
        if scan.usual is scan.on_new_line:
            self._is_line_start = False
            yield from source.sleep(scan.usual.beginning.search, emit_flowing)
            return
        usual, on_new_line = scan.usual.beginning.search, scan.on_new_line.beginning.search

        def emit_content(text: str) -> None:
            """Emit text and track whether it ends at the start of a line."""
            emit_flowing(text)
            newline = text.rfind("\n") + 1
            if newline or self._is_line_start:
                rest = text[newline:]
                self._is_line_start = not rest or rest.isspace()
                source.stop = on_new_line if self._is_line_start else usual

        tail = emitted[emitted.rfind("\n") + 1 :]
        self._is_line_start = sink.code_spans.is_line_start if not tail or tail.isspace() else False
        yield from source.sleep(on_new_line if self._is_line_start else usual, emit_content)

    def _read_token(self, token: str) -> Reader[None]:
        """Read what a token in the text starts."""
        source, grammar, sink = self.source, self.grammar, self.sink
        if not self._is_active(token) or sink.code_spans.inside_code(token):
            source.at += len(token)
            sink.emit_content(token)
        elif token in grammar.markers:
            yield from self._call(grammar.markers[token])
        elif token in grammar.anywhere and not sink.is_redirected and (yield from self._opens_reasoning(token)):
            source.at += len(token)
            yield from self._reasoning(grammar.anywhere[token])
        else:
            self._drop_token(token)

    def _opens_reasoning(self, token: str) -> Reader[bool]:
        """Whether a tag opens reasoning.

        On a line of text and before a space, where prose only mentions it, it needs an end tag.
        """
        source, sink, tags = self.source, self.sink, self.grammar.anywhere[token]
        behind = source.at + len(token)
        while behind >= len(source.text) and not source.closed:
            yield
            behind = source.at + len(token)
        if (
            sink.code_spans.is_line_start
            or self._is_spoken(token)
            or source.text[behind : behind + 1] not in (" ", ",", ".")
        ):
            return True
        while not source.closed and len(source.text) - source.at < LONGEST_THOUGHT:
            if source.text.find(tags.close, source.at) >= 0:
                return True
            yield
        return source.text.find(tags.close, source.at, source.at + LONGEST_THOUGHT) >= 0

    def _drop_token(self, token: str) -> None:
        """Drop a token that is not part of the answer: special ones anywhere, others only at its start and end.

        A special one inside the text is reported, unless its dialect is known to be spoken.
        """
        grammar, sink = self.grammar, self.sink
        self.source.at += len(token)
        is_end_tag = token not in grammar.drops and token not in grammar.anywhere
        is_known = self._is_spoken(token) and token not in grammar.words
        if sink.is_at_start or (is_known and not self._left_markup):
            self._note_spoken(token)
            sink.defer_space()
        elif self._left_markup and not is_end_tag:
            sink.emit_content(token)
        elif is_special(token) and (is_end_tag or grammar.has_calls):
            sink.drop_token(token)
        elif is_end_tag:
            sink.emit_content(token)
        else:
            sink.defer_token(token)

    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        self.sink.end_block(self.source.place)
        self.source.unmark()
        found = yield from self._scan_content(ends)
        self.source.mark()
        return found

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
        """Read reasoning that comes as a separate text; tags around it are markup."""
        grammar = self.grammar
        yield from source.skip_space()
        yield from source.take(grammar.opening)
        ends = stops(*grammar.closers)
        while found := (yield from self._scan_reasoning(ends, is_answered)):
            source.at += len(found)

    def _scan_reasoning(self, closing: Stops, is_answered: Callable[[], bool] = lambda: False) -> Reader[str]:
        """Read reasoning up to one of its possible ends and return that, unread.
        It is `""` if a call or the end of the text ends the reasoning.

        What looks like a call is one if no end follows and nothing answered.
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
        """Whether an end tag is inside backticks and thus only mentioned.

        The closing backticks must follow on the same line.
        """
        source = self.source
        if not self._reasoning_spans.inside_backticks():
            return False
        while True:
            begin = source.at + len(tag)
            line, newline, _ = source.text[begin : begin + QUOTED].partition("\n")
            if "`" in line:
                return True
            if newline or source.closed or len(line) >= QUOTED:
                return False
            yield

    def _begins_call(self, marker: str) -> Reader[bool]:
        """Whether what follows a marker in reasoning looks like a call, not like prose about one."""
        source = self.source
        size = len(marker) + 64
        while len(source.text) - source.at < size and not source.closed:
            yield
        following = source.text[source.at + len(marker) : source.at + size]
        if not marker.isascii() or marker.startswith(("<|", "[")) or self.grammar.markers[marker].keeps:
            return True
        return bool(BODY.match(following)) or following.lstrip().startswith(tuple(self.tools.schemas))

    def _read_final_calls(self, text: str, place: int) -> None:
        """Read the calls that end a reasoning; other text there is reasoning."""
        self._read_again(Source(text, closed=True, base=place), self.sink.write_reasoning)

    def _read_again(self, source: Source, redirect: Callable[[str], object]) -> None:
        """Read the calls in a complete text.

        Other text goes to `redirect`; without it, to where all text goes.
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

    def _call(self, marker: Marker) -> Reader[None]:
        """Run a marker's reader; text that it refuses becomes content."""
        source, sink = self.source, self.sink
        completed, begin = len(sink.completed), source.place
        grammar, spoken = self.grammar, self._spoken
        outer, sink.dialect = sink.dialect, lambda: grammar.dialect_of(marker, source.marked(), spoken)
        source.mark()
        sink.begin_block(begin)
        sink.open_block = ()
        source.at += 0 if marker.keeps else len(marker.text)
        try:
            yield from marker.read(source, sink)
            sink.end_block(source.place)
            sink.template = ""
            if len(sink.completed) > completed and len(speakers := grammar.speakers.get(marker.text, ())) == 1:
                self._spoken |= set(speakers)
            elif len(sink.completed) > completed or marker.channel:
                self._note_spoken(marker.text)
            elif source.marked() == marker.text:
                sink.emit_content(marker.text)
            else:
                detail = f"A block without a call was left out: {source.marked()[:SHOWN]}"
                sink.report("tool_call_empty", detail, span=(begin, source.place))
        except NotACall:
            is_markup = yield from self._is_markup(marker)
            span = source.marked_span()
            text = self._emit_as_text(marker)
            if is_markup:
                sink.report(
                    "markup_kept", f"{marker.text!r} was left as text: no call follows that can be read", text, span
                )
        except MalformedCall as refusal:
            sink.cancel()
            span = source.marked_span()
            sink.refuse(refusal, self._emit_as_text(marker), span)
        except TruncatedCall:
            self._report_cut_off(marker)
        finally:
            source.unmark()
        if len(sink.completed) > completed:
            yield from self._pass_ends_of_calls()
        sink.dialect = outer

    def _is_markup(self, marker: Marker) -> Reader[bool]:
        """Whether a marker without a call is markup.

        It is if it is a special token, or a tag before something like a call.
        """
        source, text = self.source, marker.text
        if not self.tools or marker.at_start or not text.startswith("<"):
            return bool(self.tools) and is_special(text)
        while len(source.text) - source.at < BODY_LENGTH and not source.closed:
            yield
        following = (source.marked() + source.text[source.at : source.at + BODY_LENGTH]).removeprefix(text)
        return is_special(text) or ELEMENT.match(following) is not None

    def _pass_ends_of_calls(self) -> Reader[None]:
        """Skip end tags directly after a call, and report them."""
        source = self.source
        while True:
            yield from self._pass_space()
            found = END_OF_CALL.match(source.text, source.at)
            if found:
                self._drop_end_of_call(found.group())
                continue
            rest = source.text[source.at : source.at + CUT_LENGTH]
            if not (END_OF_CALL_BEGUN.match(rest) or self._begins_marker(rest)):
                return
            if source.closed:
                if CUT_TAG.match(rest) or self._begins_marker(rest):
                    self._drop_cut_tag(rest)
                return
            yield

    def _begins_marker(self, rest: str) -> bool:
        """Whether the rest of the text is the start of a marker of calls, not a whole one."""
        return bool(rest) and any(marker.startswith(rest) and marker != rest for marker in self.grammar.call_markers)

    def _drop_cut_tag(self, tag: str) -> None:
        """Drop the start of a tag with which the text ends, and report it."""
        source, sink = self.source, self.sink
        place = source.place
        source.at += len(tag)
        begins_call = len(tag) > 1 and self._begins_marker(tag)
        what = "A call" if begins_call else f"The end of the call of {sink.completed[-1].name!r}"
        sink.report(
            "tool_call_incomplete" if begins_call else "repaired",
            f"{what} is cut off: {tag}",
            tag,
            (place, source.place),
        )

    def _drop_end_of_call(self, tag: str) -> None:
        """Drop an end tag that belongs to no call, or is cut off, and report it."""
        source, sink = self.source, self.sink
        place = source.place
        source.at += len(tag)
        name = sink.completed[-1].name
        sink.report("repaired", f"After the call of {name!r}: a superfluous {tag}", tag, (place, source.place))
        sink.defer_space()

    def _emit_as_text(self, marker: Marker) -> str:
        """Emit what a reader has read as content, and return it."""
        self.sink.cancel()
        self.sink.end_block(self.source.marked_span()[0])
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
        self.sink.emit_content(text)
        return text

    def _report_cut_off(self, marker: Marker) -> None:
        """Report a call that is cut off; a marker with nothing after it is only mentioned."""
        source, sink = self.source, self.sink
        source.at = len(source.text)
        text = source.marked()
        name = sink.cancel()
        sink.end_block(source.marked_span()[0])
        follows_call = bool(sink.completed) and not sink.is_flowing
        if text.strip() == marker.text and WORD_TAG.match(text) and not follows_call:
            sink.emit_content(text)
        elif text.strip():
            what = f"The call of {name!r}" if name else "A call"
            detail = f"{what} is cut off: {text[:SHOWN]}"
            sink.report("tool_call_incomplete", detail, text, source.marked_span())


def _spaced(tag: str) -> tuple[str, ...]:
    """Return an end tag as some models misspell it, with a space before its bracket."""
    return (f"{tag[:-1]} >",) if tag.startswith("</") and tag.endswith(">") else ()
