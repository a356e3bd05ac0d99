"""Find the end of a parameter's text.

The end is not the first tag, but the tag after which the rest of the call can be read. A value may contain any markup,
including its own end tag. It ends at its own end tag if the next parameter or the end of the call follows. Other tags end it
only if there is no such end tag, because the model forgot it. Until that is clear, the value is held back.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import NON_SPACE, MalformedCall, Reader, Source, Stops, stops

LOOKAHEAD = 400
UNCLEAR = "?"


class ValueEnd(Struct, frozen=True):
    """The tags that may end a value.

    An `own` end tag ends it if one of `opens`, `call_ends`, `block_ends` or text that `after` matches follows. A `nested` tag
    begins an element inside the value that has the same end tag; an `odd` tag occurs only in a value whose end is missing.
    Tags between the two of `cdata` are ignored. `is_opening` decides by the text after a tag of `opens` whether it opens a
    parameter.
    """

    own: tuple[str, ...]
    opens: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    call_ends: tuple[str, ...] = ()
    block_ends: tuple[str, ...] = ()
    cdata: tuple[str, str] | None = None
    odd: tuple[str, ...] = ()
    after: re.Pattern[str] | None = None
    is_opening: Callable[[str], bool] = lambda _: True

    @property
    def wanted(self) -> Stops:
        """All tags to look for."""
        cdata = self.cdata[:1] if self.cdata else ()
        return stops(*self.own, *self.opens, *self.nested, *self.call_ends, *self.block_ends, *self.odd, *cdata)

    @property
    def follows(self) -> Stops:
        """The tags that may follow the end of a value."""
        return stops(*self.opens, *self.call_ends, *self.block_ends, *self.own)


def literal_after(source: Source, distance: int, wanted: Stops) -> Reader[str | None]:
    """Return the literal `distance` characters ahead, after white space.

    It is `""` if the text ends there or inside a literal, and None for other text.
    """
    while True:
        text, begin = source.text, source.at + distance
        found = NON_SPACE.search(text, begin, begin + LOOKAHEAD)
        if found is None and len(text) - begin >= LOOKAHEAD:
            return None
        at = found.start() if found else len(text)
        is_partial = at == len(text) or wanted.is_begun(text, at)
        if source.closed or not is_partial:
            break
        yield
    if literal := wanted.pattern.match(text, at):
        return literal.group()
    return "" if is_partial and len(text) - at != 1 else None


class _Value:
    """The text of one arriving value.

    It is emitted up to the first tag, then held back until the end of the value is clear.
    """

    def __init__(self, source: Source, put: Callable[[str], object], end: ValueEnd) -> None:
        self._source = source
        self._put = put
        self._end = end
        self._first = ""
        self._last = ""
        self._is_empty = True
        self._deferred: list[str] | None = None
        self._size = 0
        self._depth = 0
        self._forgotten: int | None = None
        self._stray: int | None = None
        self._unbalanced: int | None = None
        self._next = ""
        self._odd: int | None = None
        self._is_unclear = False
        self.reached_end = False

    def add(self, text: str) -> None:
        """Add text that belongs, or may belong, to the value."""
        self._is_empty = not self._first and len(text) == 1
        self._first = self._first or text[0]
        self._last = text[-1]
        if self._deferred is None:
            self._put(text)
            return
        self._deferred.append(text)
        self._size += len(text)

    def read(self) -> Reader[str]:
        """Read up to the end of the value and return its end tag, unread; `""` if there is none."""
        source, end = self._source, self._end
        wanted = end.wanted
        while True:
            found = yield from source.until(wanted, self.add)
            if end.cdata and found == end.cdata[0]:
                yield from self._cdata(*end.cdata)
                continue
            if not found:
                return self._decide()
            if (yield from self._is_end(found)):
                if self._deferred:
                    self._put("".join(self._deferred))
                return found
            self._deferred = self._deferred or []
            self.add(found)
            source.at += len(found)

    def _cdata(self, begin: str, close: str) -> Reader[None]:
        source = self._source
        self.add(begin)
        source.at += len(begin)
        self.add((yield from source.collect(stops(close))) + close)
        source.at += len(close)

    def _is_end(self, found: str) -> Reader[bool]:
        """Whether a tag is the end of the value; if not, record that it may be the end after all."""
        end = self._end
        if found in end.own:
            return (yield from self._is_own_end(found))
        if found in end.odd:
            self._odd = self._size if self._odd is None else self._odd
            return False
        if found in end.nested or found in end.opens:
            self._depth += found in (end.nested or end.opens)
        if found in end.nested or not (yield from self._may_end(found)):
            return False
        header = self._header(found)
        if self._forgotten is None:
            self._forgotten, self._next = self._size, header
        elif header and header == self._next:
            self._forgotten, self._next = None, ""  # the same parameter again: the first was text
        return False

    def _header(self, found: str) -> str:
        """Return the rest of an opening tag; `""` for any other tag."""
        if found not in self._end.opens:
            return ""
        begin = self._source.at + len(found)
        return self._source.text[begin : begin + LOOKAHEAD].partition(">")[0]

    def _is_own_end(self, found: str) -> Reader[bool]:
        end = self._end
        following = yield from literal_after(self._source, len(found), end.follows)
        if following in end.own and self._is_doubled():
            following = yield from self._after_doubled(len(found))
        if following is None and end.after and (yield from self._is_followed_by(end.after, len(found))):
            if "".join((self._deferred or [])[-2:]).rstrip().endswith(end.opens):
                raise MalformedCall("two tags are swapped")
            following = UNCLEAR
        is_closing = following is not None and following not in end.own
        if self._depth:
            self._depth -= 1
            if is_closing and self._unbalanced is None:
                self._unbalanced = self._size
            return False
        expected = (*end.opens, *(end.call_ends or end.block_ends))
        is_clear = self._forgotten is None or (following in expected and not self._next)
        if is_closing and is_clear:
            return True
        self._is_unclear = self._is_unclear or is_closing
        if self._stray is None and not is_closing:
            self._stray = self._size
        return False

    def _is_followed_by(self, wanted: re.Pattern[str], distance: int) -> Reader[bool]:
        """Whether text that a pattern matches follows an end tag."""
        source = self._source
        while True:
            rest = source.text[source.at + distance : source.at + distance + LOOKAHEAD]
            if wanted.match(rest):
                return True
            if source.closed or len(rest) == LOOKAHEAD or len(rest.split()) > 3:
                return False
            yield

    def _is_doubled(self) -> bool:
        """Whether an end tag before another one is the end, written twice.

        A value that begins with a line end must also end with one.
        """
        return self._first != "\n" or (self._last == "\n" and not self._is_empty)

    def _after_doubled(self, distance: int) -> Reader[str | None]:
        source, end = self._source, self._end
        while True:
            found = NON_SPACE.search(source.text, source.at + distance)
            tag = end.wanted.pattern.match(source.text, found.start()) if found else None
            if tag is None or tag.group() not in end.own:
                return (yield from literal_after(source, distance, end.follows))
            distance = tag.end() - source.at
            if (yield from literal_after(source, distance, end.follows)) is None:
                return None

    def _may_end(self, found: str) -> Reader[bool]:
        """Whether a tag other than the value's own may end it, because its own is missing."""
        source, end = self._source, self._end
        if found in end.opens:
            while len(source.text) - source.at < len(found) + LOOKAHEAD and not source.closed:
                if ">" in source.text[source.at + len(found) :]:
                    break
                yield
            return end.is_opening(source.text[source.at + len(found) : source.at + len(found) + LOOKAHEAD])
        if found in end.block_ends and end.call_ends:
            return True
        if (yield from literal_after(source, len(found), stops(*end.block_ends, *end.call_ends, "<"))) is not None:
            return True
        return source.text[source.at + len(found)] in "\r\n"

    def _decide(self) -> str:
        """Go back to the tag that must be the end, as the whole text is known, and return it."""
        self.reached_end = True
        if self._is_unclear:
            raise MalformedCall("it is not clear where a value ends")
        candidates = [place for place in (self._forgotten, self._stray, self._unbalanced) if place is not None]
        if not candidates or self._deferred is None:
            return ""
        if self._odd is not None and self._forgotten is not None and self._odd < self._forgotten:
            raise MalformedCall("it is not clear where a value ends")
        place = min(candidates) if self._unbalanced is None or self._forgotten is not None else self._unbalanced
        held = "".join(self._deferred)
        if place:
            self._put(held[:place])
        self._source.unread(held[place:])
        tag = self._end.wanted.pattern.match(self._source.text, self._source.at)
        return tag.group() if tag else ""


def read_value(source: Source, put: Callable[[str], object], end: ValueEnd, sink: Sink) -> Reader[str]:
    """Emit the text of a value and return the tag that ended it, unread; `""` if there is none.

    At most `MAX_SEARCHES` values of an answer are searched to the end of the text; after that, the first tag is the end.
    """
    if not sink.searches_left:
        return (yield from source.until(end.wanted, put))
    value = _Value(source, put, end)
    found = yield from value.read()
    sink.searches_left -= value.reached_end
    return found
