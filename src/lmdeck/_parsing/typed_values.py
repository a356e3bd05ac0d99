"""Write the text of a parameter between its tags as JSON of the type in its schema."""

from __future__ import annotations

from collections.abc import Callable

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.literals import escaped
from lmdeck._parsing.offered_tools import ANY, STRING, json_for
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import (
    MalformedCall,
    Reader,
    Source,
    TruncatedCall,
)
from lmdeck._parsing.value_ends import ValueEnd, read_value

MARKUP = late_pattern(r"<[/|｜a-z]|\]<\]")
TRAILING = late_pattern(r"(?:\r?\n[ \t]*)?(?:\r?\n[ \t]*|[ \t]+|\r)?\Z")
STRING_DECIDES = frozenset('{["-0123456789tfnTFN')


class _Trimmed:
    """A filter that removes the markup's newlines and indentation from a parameter's text.

    A line end before the closing tag belongs to the markup only if one also follows the opening tag.
    """

    def __init__(self, put: Callable[[str], object], indent: str, *, trims: bool) -> None:
        self._put = put
        self._indent = indent
        self._trims = trims
        self._deferred = ""
        self._has_started = False
        self._is_padded = False

    def __call__(self, text: str) -> None:
        text = self._deferred + text
        if not self._trims:
            self._has_started = True
        if not self._has_started:
            start = "\n" + self._indent
            if len(text) <= len(start) + 1 and (start.startswith(text) or ("\r" + start).startswith(text)):
                self._deferred = text
                return
            self._has_started = True
            text = text.removeprefix("\r") if text.startswith("\r\n") else text
            if text.startswith("\n"):
                self._is_padded = True
                text = text[1:].removeprefix(self._indent)
        cut = TRAILING.search(text)
        at = cut.start() if cut and len(text) - cut.start() <= 64 else len(text)
        self._deferred = text[at:]
        if at:
            self._put(text[:at])

    def end(self, *, is_forgotten: bool = False) -> None:
        """Emit the rest of the value.

        If its end tag is missing, the line end before the next tag is not part of it.
        """
        held, self._deferred = self._deferred, ""
        if not held or not self._has_started:  # a value that is only a line end is empty
            return
        if not self._trims:
            self._put("" if is_forgotten else held)
            return
        newline = held.find("\n") if is_forgotten else held.rfind("\n")
        if not self._is_padded:
            self._put(held)
        else:
            rest = held[newline + 1 :]
            lines = held[: newline - (held[newline - 1 : newline] == "\r")] if newline >= 0 else held
            if not is_forgotten and rest and rest != self._indent and not self._indent:
                lines = held
            self._put(lines)


def typed_value(
    source: Source, sink: Sink, value_end: ValueEnd, types: frozenset[str], *, indent: str = "", trims: bool = True,
    is_json: bool = False,
) -> Reader[str]:  # fmt: skip
    """Read a parameter's text up to its end tag, write it as JSON, and return the tag.

    A string is emitted as it arrives; other values are written when they are complete. With `is_json`, a string is decoded if
    it is a JSON string.
    """

    def write_escaped(text: str) -> None:
        sink.write(escaped(text))

    if types == ANY and (yield from source.fill()):
        char = yield from _first_character(source)
        if char not in STRING_DECIDES:
            types = STRING
    if types == STRING and not is_json:
        trimmed = _Trimmed(write_escaped, indent, trims=trims)
        sink.write('"')
        end = yield from read_value(source, trimmed, value_end, sink)
        if not end:
            raise TruncatedCall
        trimmed.end(is_forgotten=end not in value_end.own)
        sink.write('"')
        return end
    parts: list[str] = []
    end = yield from read_value(source, parts.append, value_end, sink)
    if not end:
        raise TruncatedCall
    pieces: list[str] = []
    trimmed = _Trimmed(pieces.append, indent, trims=trims)
    trimmed("".join(parts))
    trimmed.end(is_forgotten=end not in value_end.own)
    written = json_for("".join(pieces), types)
    if types and "string" not in types and written[:1] == '"' and MARKUP.search(written):
        raise MalformedCall(f"a value that is not text contains markup: {written[:80]}")
    sink.write(written)
    return end


def _first_character(source: Source) -> Reader[str]:
    """Return the first character that is not white space, unread."""
    while True:
        for char in source.text[source.at : source.at + 64]:
            if not char.isspace():
                return char
        if source.closed or len(source.text) - source.at >= 64:
            return " "
        yield
