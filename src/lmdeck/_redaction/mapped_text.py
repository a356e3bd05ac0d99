"""Texts inside other texts, each with the way back to its source.

These are JSON strings, URLs and HTML with escapes, and the parts of a stream.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Span = tuple[int, int]
"""Begin and end of a part of a text, in characters."""

_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_HTML = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);")
_SHORT_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


class Text(Protocol):
    """A text and the way back to the source."""

    @property
    def text(self) -> str:
        """The text itself."""
        ...

    def sources(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the parts of the source that a part of the text comes from."""
        ...


class Source(Struct, frozen=True):
    """The source itself."""

    text: str

    def sources(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the part itself."""
        yield begin, end


class Inner(Struct, frozen=True):
    """A part of another text, with its escapes decoded.

    The text consists of stretches: `begins` are their begins, and `cuts` are the spans of the outer text that they come from. A
    stretch that differs in length from its span is a decoded escape.
    """

    outer: Text
    text: str
    begins: Sequence[int]
    cuts: Sequence[Span]

    def sources(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the parts of the source that a part of the text comes from."""
        yield from self.outer.sources(self._outer_begin(begin), self._outer_end(end))

    def _outer_begin(self, at: int) -> int:
        index = bisect_right(self.begins, at) - 1
        begin, _ = self.cuts[index]
        return begin + at - self.begins[index] if self._is_plain(index) else begin

    def _outer_end(self, at: int) -> int:
        index = bisect_right(self.begins, at - 1) - 1
        begin, end = self.cuts[index]
        return begin + at - self.begins[index] if self._is_plain(index) else end

    def _is_plain(self, index: int) -> bool:
        begin, end = self.cuts[index]
        here = self.begins[index + 1] if index + 1 < len(self.begins) else len(self.text)
        return here - self.begins[index] == end - begin


class Joined(Struct, frozen=True):
    """Texts that follow each other in a stream."""

    parts: Sequence[Text]
    text: str
    begins: Sequence[int]

    @classmethod
    def of(cls, parts: Sequence[Text]) -> Joined:
        """Return the parts as one text."""
        begins = [0]
        for part in parts:
            begins.append(begins[-1] + len(part.text))
        return cls(parts, "".join(part.text for part in parts), begins)

    def sources(self, begin: int, end: int) -> Iterator[Span]:
        """Yield the parts of the source, one or more from each text."""
        index = bisect_right(self.begins, begin) - 1
        while begin < end:
            until = min(end, self.begins[index + 1])
            if until > begin:
                yield from self.parts[index].sources(begin - self.begins[index], until - self.begins[index])
            begin, index = until, index + 1


def part_of(outer: Text, begin: int, end: int) -> Text:
    """Return a part of a text."""
    return (
        outer if begin == 0 and end == len(outer.text) else Inner(outer, outer.text[begin:end], (0,), ((begin, end),))
    )


def json_string(outer: Text, begin: int, end: int) -> Text:
    """Return the content of a JSON string, whose quotes are outside of the part."""
    if outer.text.find("\\", begin, end) < 0:
        return part_of(outer, begin, end)
    return _decoded(outer, begin, end, _ESCAPE, _json_escape)


def unescaped(outer: Text) -> Iterator[Text]:
    """Yield a text with the escapes of URLs decoded, and with those of HTML, if it has any."""
    for escape, decode in ((_PERCENT, _percent_escape), (_HTML, html.unescape)):
        if escape.search(outer.text) is not None:
            yield _decoded(outer, 0, len(outer.text), escape, decode)


def _decoded(outer: Text, begin: int, end: int, escape: re.Pattern[str], decode: Callable[[str], str]) -> Text:
    source = outer.text
    parts: list[str] = []
    begins: list[int] = []
    cuts: list[Span] = []
    size = 0

    def add(text: str, cut: Span) -> None:
        nonlocal size
        if text:
            begins.append(size)
            parts.append(text)
            cuts.append(cut)
            size += len(text)

    for found in escape.finditer(source, begin, end):
        add(source[begin : found.start()], (begin, found.start()))
        add(decode(found[0]), found.span())
        begin = found.end()
    add(source[begin:end], (begin, end))
    return Inner(outer, "".join(parts), begins or (0,), cuts or ((end, end),))


def _json_escape(escape: str) -> str:
    if escape[1] != "u" or len(escape) < 6:
        return _SHORT_ESCAPES.get(escape[1], escape[1])
    high = int(escape[2:6], 16)
    return chr(high) if len(escape) == 6 else chr(0x10000 + (high - 0xD800) * 0x400 + int(escape[8:12], 16) - 0xDC00)


def _percent_escape(escape: str) -> str:
    return bytes.fromhex(escape.replace("%", "")).decode("utf-8", "replace")
