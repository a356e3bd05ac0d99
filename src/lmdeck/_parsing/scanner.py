"""The machine that reads a model's text: it scans for all begin markers at once and hands over to the marker's reader.

It holds back only what may still become a marker. What a reader refuses is given back as content, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmdeck._parsing.code_spans import Prose
from lmdeck._parsing.dialects.dialect import Marker, ReasoningTags
from lmdeck._parsing.grammar import Grammar, Scan, is_special
from lmdeck._parsing.leftovers import left_over_call
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.sink import Calls
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
from lmdeck._parsing.unmarked_json import begins_bare

__all__ = ["Reading"]

SHOWN = 2000
BODY = re.compile(r"\s*(?:[\[{]|<(?:function|invoke|tool_call>|\||｜|arg_key)|call:|functions?[.<]|$)")
END_OF_CALL = re.compile(
    r"(?:\]<\]minimax\[>\[)?</(?=[^<>\n]*?(?:tool|call|function|invoke|action|param))[^<>\n]{1,60}>"
    r"|<(?=[^<>\n]*?(?:tool|call|action|function))(?:[|｜][^<>\n]{0,40}end[^<>\n]{0,40}[|｜]|[a-z_]{1,40}\|)>"
    r"|\[(?:/|END_)(?:TOOL|FUNCTION)[A-Z_]{0,20}\]",
    re.IGNORECASE,
)
END_OF_CALL_BEGUN = re.compile(
    r"(?:\]<\]minimax\[>\[)?<[^<>\n]{0,80}\Z|\](?:<(?:\](?:m[a-z]*(?:\[(?:>\[?)?)?)?)?)?\Z|\[[A-Z_/]{0,30}\Z"
)
ELEMENT = re.compile(r"\s*<(?:parameter|param|arg_|invoke|function|\||｜)")
BODY_LENGTH = 16
NO_ENDS = stops()
REFUSED = frozenset({"tool_call_unparsed", "tool_call_incomplete", "unoffered_tool", "markup_kept"})
QUOTED = 80
LONGEST_THOUGHT = 16_000
"""How long reasoning may be that begins on a line of text."""


class Reading:
    """An answer on its way: what was read of it, and what is known of where it stands.

    All text goes through one scanner: the answer itself, the bodies of messages and reasoning. Where it goes to differs.
    """

    def __init__(self, toolbox: Toolbox, grammar: Grammar, new_id: Callable[[], str]) -> None:
        self.toolbox = toolbox
        self.grammar = grammar
        self.source = Source()
        self.calls = Calls(toolbox, new_id, self)
        self.calls.source = self.source
        self.is_answered = False
        self.had_reasoning = False
        self._spoken = set(grammar.spoken)
        self._left_markup = False
        self._is_line_start = True
        self._thoughts = Prose()

    def run(self, prefix: str) -> Reader[None]:
        """Read an answer, `prefix` being what the template had written of it."""
        if prefix:
            yield from self._opened_by(prefix)
        yield from self._content()
        self.calls.end()
        self._reconsider_reasoning()
        self._report_left_over_call()

    def _report_left_over_call(self) -> None:
        """Report markup of a call in the answer that nothing else was said of."""
        calls = self.calls
        if not self.toolbox or any(problem.code in REFUSED for problem in calls.problems):
            return
        if markup := left_over_call(calls.content.getvalue(), self.toolbox.schemas):
            calls.dropped(
                "tool_call_unparsed", f"Markup of a call was left as text, for no call could be read: {markup!r}"
            )

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
        begun = prefix[last_message:] if last_message >= 0 else ""
        begun = begun or next((text for text in grammar.call_markers if prefix.rstrip().endswith(text)), "")
        begun = begun or next((text for text in grammar.starts if len(text) > 1 and prefix.endswith(text)), "")
        self.source = self.calls.source = Source(begun, base=-len(begun))
        self.calls.template = begun
        self._spoken |= set().union(
            *(names for text, names in grammar.speakers.items() if begun and begun.startswith(text))
        )

    def _content(self, ends: Stops = NO_ENDS) -> Reader[str]:
        """Read text up to one of `ends` and return that, unread; `""` at the end of all text."""
        calls, scan = self.calls, self.grammar.scan(ends)
        while True:
            if calls.is_at_start and (yield from self._reads_opening(ends)):
                continue
            if (yield from self._reads_start_marker(ends)):
                continue
            token = yield from self._passes_text(scan)
            if not token or token in ends.literals:
                return token
            if token[0] != "\n":
                yield from self._token(token)

    def _reads_opening(self, ends: Stops) -> Reader[bool]:
        """Read what stands before any content: white space, and reasoning."""
        source, grammar = self.source, self.grammar
        yield from self._pass_space()
        found = yield from source.ahead(grammar.opening)
        if not found or found in ends.literals:
            return False
        if found in grammar.openers:
            if (self.had_reasoning and found not in grammar.anywhere) or not self._acts(found):
                return False
            source.at += len(found)
            yield from self._reasoning(grammar.openers[found])
        else:
            source.at += len(found)
            self.had_reasoning = True
        return True

    def _acts(self, literal: str) -> bool:
        """Whether a literal may act: what ordinary text may hold, only where its dialect is known to be spoken."""
        return literal not in self.grammar.words or self._is_spoken(literal)

    def _is_spoken(self, literal: str) -> bool:
        """Whether a dialect that has a literal is known to be spoken."""
        return not self._spoken.isdisjoint(self.grammar.speakers.get(literal, ()))

    def _learn(self, literal: str) -> None:
        """Take what was read behind a special token as evidence of the dialects that have it."""
        if literal in self.grammar.special:
            self._spoken |= self.grammar.speakers[literal]

    def _reads_start_marker(self, ends: Stops) -> Reader[bool]:
        """Read a marker that counts only at the start of a line; no message begins inside a message."""
        source, grammar, calls = self.source, self.grammar, self.calls
        if grammar.begins_start(source.text, source.at) is None or not calls.prose.is_line_start:
            return False
        yield from self._pass_space()
        found = yield from source.ahead(grammar.start_tokens)
        if not found or not self._acts(found) or calls.prose.shows_code():
            return False
        if ends.literals and grammar.starts[found].channel:
            return False
        if found in grammar.begins and not (yield from begins_bare(source, grammar.bare, grammar.is_known)):
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

    def _passes_text(self, scan: Scan) -> Reader[str]:
        """Pass text on up to the next token and return that, unread; `""` at the end.

        A line end behind which a start marker may stand is a token, too, but is passed on.
        """
        source, say = self.source, self.calls.say
        while True:
            text, at = source.text, source.at
            end, token = scan.usual.find(text, at, closed=source.closed)
            if token[:1] == "\n":
                end += len(token)
            if end > at:
                say(text[at:end])
                source.at = end
            if token or source.closed:
                return token
            yield from self._sleep(scan, text[at:end])
            if self._is_line_start and self.grammar.begins_start(source.text):
                return "\n"

    def _sleep(self, scan: Scan, said: str) -> Reader[None]:
        """Wait for a token behind what was said last; what comes before is passed on."""
        calls, source = self.calls, self.source
        pass_on = calls.pass_on if calls.flows else calls.say
        if scan.usual is scan.on_new_line:
            self._is_line_start = False
            yield from source.sleep(scan.usual.begun.search, pass_on)
            return
        usual, on_new_line = scan.usual.begun.search, scan.on_new_line.begun.search

        def say(text: str) -> None:
            """Pass text on and follow whether a line begins where it ends."""
            pass_on(text)
            newline = text.rfind("\n") + 1
            if newline or self._is_line_start:
                rest = text[newline:]
                self._is_line_start = not rest or rest.isspace()
                source.stop = on_new_line if self._is_line_start else usual

        tail = said[said.rfind("\n") + 1 :]
        self._is_line_start = calls.prose.is_line_start if not tail or tail.isspace() else False
        yield from source.sleep(on_new_line if self._is_line_start else usual, say)

    def _token(self, token: str) -> Reader[None]:
        """Read what a token in the text begins."""
        source, grammar, calls = self.source, self.grammar, self.calls
        if not self._acts(token) or calls.prose.shows_code(token):
            source.at += len(token)
            calls.say(token)
        elif token in grammar.markers:
            yield from self._call(grammar.markers[token])
        elif token in grammar.anywhere and not calls.is_aside and (yield from self._opens_reasoning(token)):
            source.at += len(token)
            yield from self._reasoning(grammar.anywhere[token])
        else:
            self._drop(token)

    def _opens_reasoning(self, token: str) -> Reader[bool]:
        """Whether a tag opens reasoning: on a line of text and before a space, as prose talks of it, it needs an end."""
        source, calls, tags = self.source, self.calls, self.grammar.anywhere[token]
        behind = source.at + len(token)
        while behind >= len(source.text) and not source.closed:
            yield
            behind = source.at + len(token)
        if (
            calls.prose.is_line_start
            or self._is_spoken(token)
            or source.text[behind : behind + 1] not in (" ", ",", ".")
        ):
            return True
        while not source.closed and len(source.text) - source.at < LONGEST_THOUGHT:
            if tags.close in source.text:
                return True
            yield
        return source.text.find(tags.close, source.at) >= 0

    def _drop(self, token: str) -> None:
        """Leave out a token that is no part of the answer: special ones anywhere, others only at its start and its end."""
        grammar, calls = self.grammar, self.calls
        self.source.at += len(token)
        is_known = token not in grammar.words and (
            self._is_spoken(token) or (grammar.has_calls and token in grammar.special)
        )
        if token not in grammar.drops and token not in grammar.anywhere:
            if is_special(token) or calls.is_at_start:
                calls.hold_space()
            else:
                calls.say(token)
        elif calls.is_at_start or (is_known and not self._left_markup):
            self._learn(token)
            calls.hold_space()
        elif self._left_markup:
            calls.say(token)
        else:
            calls.hold_token(token)

    def read_message(self, ends: Stops) -> Reader[str]:
        """Read the body of a message to the user up to one of `ends` and return that, unread."""
        self.source.unmark()
        found = yield from self._content(ends)
        self.source.mark()
        return found

    def read_thought(self, ends: Stops) -> Reader[str]:
        """Read the body of a message that is reasoning up to one of `ends` and return that, unread."""
        self.source.unmark()
        found = yield from self._thought(ends)
        self.source.mark()
        return found

    def _reasoning(self, tags: ReasoningTags) -> Reader[None]:
        """Read reasoning up to its end tag, to a call that ends it, or to the end of the text."""
        source, calls = self.source, self.calls
        self.had_reasoning = True
        self._learn(tags.open)
        while (yield from source.skip_space()) and (yield from source.take(stops(tags.open))):
            continue
        if tags.label:
            yield from source.take(stops(tags.label))
            yield from source.skip_space()
        closing = stops(tags.close, *tags.also_closes, *_spaced(tags.close))
        made = len(calls.made)
        found = yield from self._thought(closing)
        if not found:
            if len(calls.made) == made:
                calls.dropped("reasoning_unclosed", "The reasoning has no end")
            return
        source.at += len(found)
        calls.hold_space()
        if calls.is_at_start:
            yield from source.skip_space()

    def read_channel(self, source: Source, is_answered: Callable[[], bool]) -> Reader[None]:
        """Read reasoning that comes as a text of its own; tags around it are markup."""
        grammar = self.grammar
        yield from source.skip_space()
        yield from source.take(grammar.opening)
        ends = stops(*grammar.closers)
        while found := (yield from self._thought(ends, is_answered)):
            source.at += len(found)

    def _thought(self, closing: Stops, is_answered: Callable[[], bool] = lambda: False) -> Reader[str]:
        """Read reasoning up to one of some ends and return that, unread; `""` where a call or the end of the text ends it.

        What looks like a call is one if no end follows and nothing answered.
        """
        source, calls, grammar = self.source, self.calls, self.grammar
        self._thoughts = Prose()
        markers = grammar.call_markers if self.toolbox else ()
        wanted = stops(*closing.literals, *grammar.inline, *grammar.reserved, *markers)
        while True:
            found = yield from source.until(wanted, self._think)
            if not found:
                return ""
            if found in closing.literals:
                if not (yield from self._is_quoted(found)):
                    return found
            elif found in grammar.reserved:
                source.at += len(found)
                continue
            elif found in grammar.inline and self._acts(found):
                source.at += len(found)
                yield from grammar.inline[found].read(source, calls)
                continue
            elif found not in grammar.inline and (yield from self._begins_call(found)):
                place, held = source.place, list[str]()
                end = yield from source.until(closing, held.append)
                if not end and not is_answered():
                    self._calls_of("".join(held), place)
                    return ""
                self._think("".join(held))
                continue
            self._think(found)
            source.at += len(found)

    def _think(self, text: str) -> None:
        self.calls.think(text)
        self._thoughts.see(text)

    def _is_quoted(self, tag: str) -> Reader[bool]:
        """Whether an end tag stands inside backticks, and so is only talked about: their end must follow on the line."""
        source = self.source
        if not self._thoughts.is_in_span():
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
        """Tell whether what follows a marker in reasoning looks like a call, not like prose about one."""
        source = self.source
        size = len(marker) + 64
        while len(source.text) - source.at < size and not source.closed:
            yield
        following = source.text[source.at + len(marker) : source.at + size]
        if not marker.isascii() or marker.startswith(("<|", "[")) or self.grammar.markers[marker].keeps:
            return True
        return bool(BODY.match(following)) or following.lstrip().startswith(tuple(self.toolbox.schemas))

    def _calls_of(self, text: str, place: int) -> None:
        """Read the calls with which a text ends its reasoning; what is no call there is reasoning."""
        self._read_again(Source(text, closed=True, base=place), self.calls.think)

    def _read_again(self, source: Source, sink: Callable[[str], object]) -> None:
        """Read a text that is already whole for its calls; other text goes to `sink`."""
        calls, prose, outer = self.calls, self.calls.prose, self.source
        calls.sink, calls.prose = sink, Prose()
        self.source = calls.source = source
        for _ in self._content():
            pass
        self.source = calls.source = outer
        calls.sink, calls.prose = None, prose

    def _reconsider_reasoning(self) -> None:
        """Look for calls in the reasoning where the answer itself is empty."""
        calls = self.calls
        if calls.made or self.is_answered or not self.toolbox or calls.problems or calls.content.getvalue().strip():
            return
        text = calls.reasoning.getvalue()
        if not any(marker in text for marker in self.grammar.call_markers):
            return
        self._read_again(Source(text, closed=True, base=calls.thought_place), lambda _: None)
        calls.problems.clear()
        if calls.made:
            calls.dropped("calls_in_reasoning", "The calls stood in the reasoning")

    def _call(self, marker: Marker) -> Reader[None]:
        """Hand over to a marker's reader; give back as content what it refuses."""
        source, calls = self.source, self.calls
        made, begin = len(calls.made), source.place
        source.mark()
        calls.begin_block(begin)
        source.at += 0 if marker.keeps else len(marker.text)
        try:
            yield from marker.read(source, calls)
            calls.end_block(source.place)
            calls.template = ""
            if len(calls.made) > made or marker.channel:
                self._learn(marker.text)
            elif source.marked() == marker.text:
                calls.say(marker.text)
            else:
                detail = f"A block without a call was left out: {source.marked()[:SHOWN]}"
                calls.dropped("tool_call_empty", detail, span=(begin, source.place))
        except NotACall:
            is_markup = yield from self._is_markup(marker)
            span = source.marked_span()
            text = self._give_back(marker)
            if is_markup:
                calls.dropped(
                    "markup_kept", f"{marker.text!r} was left as text: no call follows that can be read", text, span
                )
        except MalformedCall as refusal:
            calls.abandon()
            span = source.marked_span()
            calls.refuse(refusal, self._give_back(marker), span)
        except TruncatedCall:
            self._cut_off(marker)
        finally:
            source.unmark()
        if len(calls.made) > made:
            yield from self._pass_ends_of_calls()

    def _is_markup(self, marker: Marker) -> Reader[bool]:
        """Whether a marker was meant as one though no call follows: a special token, or a tag before what looks like a call."""
        source, text = self.source, marker.text
        if not self.toolbox or marker.at_start or not text.startswith("<"):
            return bool(self.toolbox) and is_special(text)
        while len(source.text) - source.at < BODY_LENGTH and not source.closed:
            yield
        following = (source.marked() + source.text[source.at : source.at + BODY_LENGTH]).removeprefix(text)
        return is_special(text) or ELEMENT.match(following) is not None

    def _pass_ends_of_calls(self) -> Reader[None]:
        """Leave out end tags that stand right behind a call."""
        source, calls = self.source, self.calls
        while True:
            yield from self._pass_space()
            found = END_OF_CALL.match(source.text, source.at)
            if found:
                place = source.place
                source.at = found.end()
                tag, name = found.group(), calls.made[-1].name
                calls.dropped("repaired", f"Behind the call of {name!r}: {tag} too many", tag, (place, source.place))
                calls.hold_space()
            elif source.closed or not END_OF_CALL_BEGUN.match(source.text, source.at):
                return
            else:
                yield

    def _give_back(self, marker: Marker) -> str:
        """Pass on as content what a reader read, and return it."""
        self.calls.abandon()
        self.calls.end_block(self.source.marked_span()[0])
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
        calls.end_block(source.marked_span()[0])
        if text.strip() == marker.text and marker.text.startswith("<") and marker.text[1].isalpha():
            calls.say(text)
        elif text.strip():
            what = f"The call of {name!r}" if name else "A call"
            detail = f"{what} is cut off: {text[:SHOWN]}"
            calls.dropped("tool_call_incomplete", detail, text, source.marked_span())


def _spaced(tag: str) -> tuple[str, ...]:
    """Return an end tag as some models misspell it, with a space before its bracket."""
    return (f"{tag[:-1]} >",) if tag.startswith("</") and tag.endswith(">") else ()
