"""The text of an answer as readers see it: whole, although it arrives in pieces.

Readers are generators. They read a `Source` as if it had the whole text, and `yield` when they need more of it. So the result
cannot depend on where the text was cut, and an incremental reader is written like an ordinary one. A reader decides only on
text that has arrived; what it has emitted is final.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Generator[None, None, T]
NON_SPACE = re.compile(r"\S")
MAX_UNREAD = 200
"""The length of unread text at which a waiting reader is resumed in any case."""
NO_GUARDS: Mapping[str, tuple[str, str]] = MappingProxyType({})
PREFIX_LENGTH = 4
"""How many characters of a literal `beginning` looks for: enough to skip HTML, few enough to compile quickly."""


class NotACall(Exception):
    """The text after the marker is not a call."""


class MalformedCall(Exception):
    """The text is a call that cannot be read."""


class UnofferedCall(MalformedCall):
    """The text is a call of a tool that was not offered."""


class TruncatedCall(Exception):
    """The text ended inside a call."""


class Stops:
    """Literals to look for at once; if one begins with another, the longer one wins.

    `pattern` matches one of them. `beginning` finds where one may begin: its first characters, or fewer at the end of the text.
    The expressions are compiled on first use, because an answer is written in one of many dialects.
    """

    def __init__(
        self, literals: Iterable[str], also: str = "", guards: Mapping[str, tuple[str, str]] = NO_GUARDS
    ) -> None:
        """Look for `literals`, and for what the expression `also` matches.

        The guards of a literal are the characters after which it does not count, and an expression that must match after it.
        """
        self.literals = tuple(sorted({literal for literal in literals if literal}, key=len, reverse=True))
        self.longest = max(map(len, self.literals), default=1)
        self._also = also
        self._guards = {literal: guard for literal, guard in guards.items() if literal in self.literals}

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression of the literals."""
        free = [literal for literal in self.literals if literal not in self._guards]
        guarded = (
            _first(literal, not_after) + re.escape(literal[1:]) + after
            for literal, (not_after, after) in self._guards.items()
        )
        return re.compile(_either(alternatives(free), self._also, *guarded))

    @cached_property
    def beginning(self) -> re.Pattern[str]:
        """The expression of the starts of the literals, which `find` checks."""
        starts = {literal[:PREFIX_LENGTH] for literal in self.literals if literal not in self._guards}
        guarded = (
            f"{_first(literal, not_after)}(?:{re.escape(literal[1:])}{after}|{_prefixes_at_end(literal[1:])})"
            for literal, (not_after, after) in self._guards.items()
        )
        return re.compile(_either(alternatives(starts, or_end=True), self._also, *guarded))

    @cached_property
    def prefixes(self) -> frozenset[str]:
        """The proper prefixes of the literals."""
        return frozenset(literal[:n] for literal in self.literals for n in range(1, len(literal)))

    def is_begun(self, text: str, at: int) -> bool:
        """Whether the text ends inside a literal that begins at a position.

        A shorter literal may end there.
        """
        return len(text) - at < self.longest and text[at:] in self.prefixes

    def literal_at(self, text: str, at: int) -> str:
        """Return the literal at a position; `""` if there is none."""
        if not self._also and not text.startswith(self.literals, at):  # then the expression need not be compiled
            return ""
        found = self.pattern.match(text, at)
        return found.group() if found else ""

    def find(self, text: str, at: int, *, closed: bool) -> tuple[int, str]:
        """Return the position of the first literal, and the literal.

        The literal is `""` if only the start of one was found at the end of incomplete text, or none; then the position is the
        end of the text.
        """
        while found := self.beginning.search(text, at):
            start = found.start()
            if not closed and self.is_begun(text, start):
                return start, ""
            if whole := self.pattern.match(text, start):
                return start, whole.group()
            at = start + 1
        return len(text), ""


def _either(*expressions: str) -> str:
    return "|".join(filter(None, expressions))


def _first(literal: str, not_after: str) -> str:
    """Return an expression of a literal's first character, not after certain characters.

    Because the character comes first, `re` finds it fast.
    """
    first = re.escape(literal[0])
    return f"{first}(?<![{not_after}]{first})"


def _prefixes_at_end(literal: str) -> str:
    """Return an expression of a literal's proper prefixes, and of none, at the end of the text."""
    return "(?:" + "|".join(re.escape(literal[:size]) for size in reversed(range(len(literal)))) + r")\Z"


def alternatives(literals: Iterable[str], *, or_end: bool = False) -> str:
    """Return a regular expression of literals as a tree, which tests each character once.

    With `or_end`, it also matches if the text ends inside a literal.
    """
    tree: dict[str, Any] = {}
    for literal in literals:
        node = tree
        for char in literal:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(tree, r"\Z" if or_end else "", is_root=True) if tree else r"(?!)"


def _branches(node: dict[str, Any], end: str, *, is_root: bool = False) -> str:
    """Return the expression of a subtree; `end` matches the end of the text inside a literal."""
    run = ""
    while len(node) == 1 and not end and "" not in node:
        char, node = next(iter(node.items()))
        run += re.escape(char)
    choices = [re.escape(char) + _branches(child, end) for char, child in node.items() if char]
    if end and choices and not is_root:
        choices.append(end)
    if "" in node and choices:
        choices.append("")
    if not choices:
        return run
    if is_root and not run:
        return "|".join(choices)  # without a group, `re` searches for the first characters only, which is faster
    return run + (choices[0] if len(choices) == 1 else f"(?:{'|'.join(choices)})")


def run_whole(reader: Reader[None]) -> None:
    """Run a reader of text that is complete, so that it never waits."""
    next(reader, None)


@lru_cache(maxsize=4096)
def stops(*literals: str) -> Stops:
    """Return the cached `Stops` of some literals."""
    return Stops(literals)


class Source:
    """Text that is still arriving, the reading position, and the text since a mark.

    `base` is the number of characters before `text`. A reader that waits for literals sets `stop` and `put`: new text in which
    `stop` finds nothing is passed to `put`, and the reader is not resumed. With `keep`, it is not resumed while that matches
    all unread text.
    """

    __slots__ = ("_collected", "_mark", "at", "base", "closed", "keep", "put", "stop", "text")

    def __init__(self, text: str = "", *, closed: bool = False, base: int = 0) -> None:
        self.text = text
        self.at = 0
        self.base = base
        self.closed = closed
        self.stop: Callable[[str], object] | None = None
        self.put: Callable[[str], object] | None = None
        self.keep: Callable[[str], object] | None = None
        self._collected: list[str] = []
        self._mark = -1

    @property
    def place(self) -> int:
        """The number of characters of the whole text that were read."""
        return self.base + self.at

    def feed(self, text: str) -> None:
        """Add new text and discard what was read."""
        at = self.at
        if self._mark >= 0:
            self._collected.append(self.text[self._mark : at])
            self._mark = 0
        self.text = self.text[at:] + text if at < len(self.text) else text
        self.base += at
        self.at = 0

    def close(self) -> None:
        """Mark the text as complete."""
        self.closed = True

    def passes(self, text: str) -> bool:
        """Whether new text does not concern the waiting reader; if so, pass the text to `put`."""
        stop, put = self.stop, self.put
        if stop is None or put is None:
            return self.keep is not None and self._keeps(text, self.keep)
        if self.text:
            text = self.text + text
        if stop(text) is not None:
            return False
        self.text = ""
        self.base += len(text)
        if self._mark >= 0:
            self._collected.append(text)
        put(text)
        return True

    def _keeps(self, text: str, keep: Callable[[str], object]) -> bool:
        """Add new text if the waiting reader cannot decide on it; return whether that is so."""
        if self.at or self._mark >= 0:
            self.feed("")
        whole = self.text + text
        if len(whole) >= MAX_UNREAD or keep(whole) is None:
            return False
        self.text = whole
        return True

    def wait_while(self, keep: Callable[[str], object]) -> Reader[None]:
        """Wait until `keep` does not match the unread text."""
        self.keep = keep
        yield
        self.keep = None

    def wait_for(self, stop: Callable[[str], object], put: Callable[[str], object]) -> None:
        """Let the reader be resumed only by text in which `stop` finds something.

        Other text is passed to `put`.

        The reader yields next, and then calls `end_wait`. A generator for this would be one more in each stream.
        """
        self.feed("")
        self.stop, self.put = stop, put

    def end_wait(self) -> None:
        """Let the reader be resumed by any text again."""
        self.stop = self.put = None

    def mark(self) -> None:
        """Start to record what is read."""
        self._collected = []
        self._mark = self.at

    def marked(self) -> str:
        """Return the text read since the mark."""
        return "".join((*self._collected, self.text[self._mark : self.at]))

    def marked_span(self) -> tuple[int, int]:
        """Return the span of the text read since the mark."""
        length = sum(map(len, self._collected)) + self.at - max(self._mark, 0)
        return self.place - length, self.place

    def last_read(self, length: int) -> str:
        """Return the last text read since the mark, at most `length` characters of it."""
        parts = [self.text[max(self._mark, 0, self.at - length) : self.at]]
        size = len("".join(parts))
        for part in reversed(self._collected):
            if size >= length:
                break
            parts.append(part[size - length :])
            size += len(parts[-1])
        return "".join(reversed(parts))

    def unmark(self) -> None:
        """Stop recording what is read."""
        self._collected = []
        self._mark = -1

    def unread(self, text: str) -> None:
        """Go back to before `text`, which was read last."""
        if len(text) <= self.at:
            self.at -= len(text)
            return
        rest = self.text[self.at :]
        self._collected = [self.marked().removesuffix(text)]
        self._mark = 0
        self.text = text + rest
        self.base += self.at - len(text)
        self.at = 0

    def fill(self) -> Reader[bool]:
        """Wait for a character; return False at the end of the text."""
        while self.at >= len(self.text):
            if self.closed:
                return False
            yield
        return True

    def peek(self) -> Reader[str]:
        """Return the next character without reading it; `""` at the end."""
        return self.text[self.at] if (yield from self.fill()) else ""

    def skip_space(self) -> Reader[str]:
        """Skip white space and return the next character, unread; `""` at the end."""
        while True:
            found = NON_SPACE.search(self.text, self.at)
            if found:
                self.at = found.start()
                return found.group()
            self.at = len(self.text)
            if self.closed:
                return ""
            yield

    def pass_space(self, put: Callable[[str], object]) -> Reader[bool]:
        """Pass white space to `put`; return whether it contains a line end."""
        is_new_line = False
        while True:
            begin = self.at
            found = NON_SPACE.search(self.text, begin)
            end = found.start() if found else len(self.text)
            if end > begin:
                self.at = end
                is_new_line = is_new_line or "\n" in self.text[begin:end]
                put(self.text[begin:end])
            if found or self.closed:
                return is_new_line
            yield

    def ahead(self, wanted: Stops) -> Reader[str]:
        """Return the literal that comes next, unread; `""` if none comes next."""
        while True:
            if not self.closed and (self.at >= len(self.text) or wanted.is_begun(self.text, self.at)):
                yield
                continue
            return wanted.literal_at(self.text, self.at)

    def take(self, wanted: Stops) -> Reader[str]:
        """Read the literal that comes next, and return it."""
        found = yield from self.ahead(wanted)
        self.at += len(found)
        return found

    def until(self, wanted: Stops, put: Callable[[str], object]) -> Reader[str]:
        """Pass text to `put` up to the first of some literals and return the literal, unread.

        It is `""` at the end of the text.
        """
        while True:
            text, at = self.text, self.at
            end, literal = wanted.find(text, at, closed=self.closed)
            if end > at:
                put(text[at:end])
                self.at = end
            if literal or self.closed:
                return literal
            self.wait_for(wanted.beginning.search, put)
            yield
            self.end_wait()

    def ends_inside(self, wanted: Stops, least: int = 2) -> Reader[bool]:
        """Read the rest of the text if it is the start of a literal; return whether it is.

        The start must have at least `least` characters.
        """
        while True:
            rest = len(self.text) - self.at
            if rest >= wanted.longest or self.text[self.at :].rstrip() not in wanted.prefixes:
                return False
            if self.closed:
                if rest < least:
                    return False
                self.at = len(self.text)
                return True
            yield

    def within(self, wanted: Stops, limit: int) -> Reader[tuple[str, str]]:
        """Return the text up to the first of some literals, and the literal, unread.

        The literal is `""` at the end of the text.

        Raises:
            NotACall: More than `limit` characters come before; none of them is read.
        """
        while True:
            found = wanted.pattern.search(self.text, self.at, self.at + limit + wanted.longest)
            is_whole = self.closed or found is None or not wanted.is_begun(self.text, found.start())
            if found and is_whole and found.start() - self.at <= limit:
                text, self.at = self.text[self.at : found.start()], found.start()
                return text, found.group()
            if len(self.text) - self.at > limit + wanted.longest or (found and self.closed):
                raise NotACall
            if self.closed:
                if len(self.text) - self.at > limit:
                    raise NotACall
                text, self.at = self.text[self.at :], len(self.text)
                return text, ""
            yield

    def collect(self, wanted: Stops) -> Reader[str]:
        """Return the text up to the first of some literals.

        Raises:
            TruncatedCall: The text ended before one came.
        """
        parts: list[str] = []
        if not (yield from self.until(wanted, parts.append)):
            raise TruncatedCall
        return "".join(parts)

    def collect_while(self, pattern: re.Pattern[str]) -> Reader[str]:
        """Return the run of characters that a pattern matches, which may be empty."""
        parts: list[str] = []
        while True:
            found = pattern.match(self.text, self.at)
            end = found.end() if found else self.at
            parts.append(self.text[self.at : end])
            self.at = end
            if end < len(self.text) or self.closed:
                return "".join(parts)
            yield
