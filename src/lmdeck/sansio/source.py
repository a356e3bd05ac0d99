"""The text of an answer as a reader sees it: whole, although it arrives in pieces.

Readers are generators. They read `Source` as if all of the text were there and `yield` wherever they need more of it, so the
result cannot depend on how the text was cut, and an incremental reader is written like a plain one. A reader decides only on
text that it has seen; what it passes on is never taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from functools import lru_cache
from typing import TypeVar

__all__ = [
    "NON_SPACE",
    "MalformedCall",
    "NotACall",
    "Reader",
    "Source",
    "Stops",
    "TruncatedCall",
    "UnofferedCall",
    "stops",
]

T = TypeVar("T")
Reader = Generator[None, None, T]
NON_SPACE = re.compile(r"\S")


class NotACall(Exception):  # noqa: N818 - no error: the text is simply text
    """What follows the marker is no call."""


class MalformedCall(Exception):  # noqa: N818
    """It is a call, and it cannot be read."""


class UnofferedCall(MalformedCall):
    """It is a call of a tool that was not offered."""


class TruncatedCall(Exception):  # noqa: N818
    """The text ended inside a call."""


class Stops:
    """Literals to look for at once, none of which begins with another."""

    __slots__ = ("first", "literals", "longest", "pattern", "prefixes")

    def __init__(self, literals: Iterable[str]) -> None:
        self.literals = tuple(sorted({literal for literal in literals if literal}, key=len, reverse=True))
        self.pattern = re.compile("|".join(map(re.escape, self.literals)) or r"(?!)")
        self.prefixes = frozenset(literal[:n] for literal in self.literals for n in range(1, len(literal)))
        self.longest = max(map(len, self.literals), default=1)
        heads = "".join(sorted({re.escape(literal[0]) for literal in self.literals}))
        self.first = re.compile(f"[{heads}]" if heads else r"(?!)")

    def tail(self, text: str, at: int) -> int:
        """Give where the longest tail begins that may become one of the literals; the end where there is none."""
        for found in self.first.finditer(text, max(at, len(text) - self.longest + 1)):
            if text[found.start() :] in self.prefixes:
                return found.start()
        return len(text)


@lru_cache(maxsize=4096)
def stops(*literals: str) -> Stops:
    """Give the (remembered) `Stops` for some literals."""
    return Stops(literals)


class Source:
    """Text that is still arriving, the place up to which it was read, and what was read since a mark."""

    __slots__ = ("_kept", "_mark", "at", "closed", "text")

    def __init__(self, text: str = "", *, closed: bool = False) -> None:
        self.text = text
        self.at = 0
        self.closed = closed
        self._kept: list[str] = []
        self._mark = -1

    def feed(self, text: str) -> None:
        """Add text that arrived, and let go of what was read."""
        at = self.at
        if self._mark >= 0:
            self._kept.append(self.text[self._mark : at])
            self._mark = 0
        self.text = self.text[at:] + text if at < len(self.text) else text
        self.at = 0

    def mark(self) -> None:
        """Keep what is read from here on."""
        self._kept = []
        self._mark = self.at

    def marked(self) -> str:
        """Give what was read since the mark."""
        return "".join((*self._kept, self.text[self._mark : self.at]))

    def unmark(self) -> None:
        """Keep no longer what is read."""
        self._kept = []
        self._mark = -1

    def fill(self) -> Reader[bool]:
        """Wait for a character; tell whether one came."""
        while self.at >= len(self.text):
            if self.closed:
                return False
            yield
        return True

    def peek(self) -> Reader[str]:
        """Give the next character, `""` at the end."""
        return self.text[self.at] if (yield from self.fill()) else ""

    def skip_space(self) -> Reader[str]:
        """Go to the next character that is no white space and give it, `""` at the end."""
        while True:
            found = NON_SPACE.search(self.text, self.at)
            if found:
                self.at = found.start()
                return found.group()
            self.at = len(self.text)
            if self.closed:
                return ""
            yield

    def ahead(self, wanted: Stops) -> Reader[str]:
        """Give the literal that comes next, `""` where none does."""
        while True:
            rest = len(self.text) - self.at
            if not self.closed and rest < wanted.longest and (not rest or self.text[self.at :] in wanted.prefixes):
                yield
                continue
            found = wanted.pattern.match(self.text, self.at)
            return found.group() if found else ""

    def take(self, wanted: Stops) -> Reader[str]:
        """Read the literal that comes next, and give it."""
        found = yield from self.ahead(wanted)
        self.at += len(found)
        return found

    def until(self, wanted: Stops, put: Callable[[str], object]) -> Reader[str]:
        """Pass text on up to the first of some literals and give that, unread; `""` at the end."""
        while True:
            found = wanted.pattern.search(self.text, self.at)
            if found:
                if found.start() > self.at:
                    put(self.text[self.at : found.start()])
                self.at = found.start()
                return found.group()
            cut = len(self.text) if self.closed else wanted.tail(self.text, self.at)
            if cut > self.at:
                put(self.text[self.at : cut])
                self.at = cut
            if self.closed:
                return ""
            yield

    def within(self, wanted: Stops, limit: int) -> Reader[tuple[str, str]]:
        """Read up to the first of some literals, which must come soon; give the text and the literal, `""` at the end.

        Raises:
            NotACall: More than `limit` characters come before; none of them is read.
        """
        while True:
            found = wanted.pattern.search(self.text, self.at, self.at + limit + wanted.longest)
            if found and found.start() - self.at <= limit:
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
        """Read up to the first of some literals.

        Raises:
            TruncatedCall: None of them comes.
        """
        parts: list[str] = []
        if not (yield from self.until(wanted, parts.append)):
            raise TruncatedCall
        return "".join(parts)

    def collect_while(self, pattern: re.Pattern[str]) -> Reader[str]:
        """Read as long as characters fit; the pattern matches one run of them, maybe empty."""
        parts: list[str] = []
        while True:
            found = pattern.match(self.text, self.at)
            if found:
                parts.append(found.group())
                self.at = found.end()
            if self.at < len(self.text) or self.closed:
                return "".join(parts)
            yield
