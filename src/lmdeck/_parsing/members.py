"""The members of one block of calls.

Each is read separately, so that a bad one does not affect the others.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, Reader, Source, Stops, TruncatedCall, UnofferedCall, stops

BRACKETS = ('"', "'", "{", "}", "[", "]", "(", ")")
OPENED_BY = {"}": "{", "]": "[", ")": "("}
NEXT_MEMBER = late_pattern(r"\s*(?:[,;]?\s*(?:\{\s*[\"']|[A-Za-z_][\w.\-]*\()|\])")
MEMBERS = late_pattern(r"[}\])]\s*[,;\n]\s*(?:\{\s*[\"']|[A-Za-z_][\w.\-]*\()")
CLOSERS = {"": late_pattern(r"[}\])]*"), "]": late_pattern(r"[})]*")}
LOOKAHEAD = 200
TRIES = 8


class Block:
    """The refused members of one block, until it is known whether any member is a call.

    If one is, each refused member becomes content with a `Problem`; if none is, the whole block becomes content.
    """

    def __init__(self, source: Source, sink: Sink) -> None:
        self._source = source
        self._sink = sink
        self._made = len(sink.completed)
        self._refused: list[tuple[MalformedCall, str, tuple[int, int]]] = []
        self._tries = TRIES

    @property
    def has_calls(self) -> bool:
        """Whether a call of this block was read."""
        return len(self._sink.completed) > self._made

    def member(self, read: Reader[None], ends: Stops, *, tags: Stops | None = None) -> Reader[None]:
        """Read one member with `read`; if it is refused, skip it.

        A member ends with its closing bracket or before `ends`; an element ends with one of its end `tags`.

        Raises:
            TruncatedCall: The text ended inside the member.
        """
        try:
            yield from self._member(read, ends, tags)
        except TruncatedCall:
            self._rewind()
            raise

    def _member(self, read: Reader[None], ends: Stops, tags: Stops | None) -> Reader[None]:
        source, sink = self._source, self._sink
        self._mark()
        begin = len(source.marked())
        try:
            yield from read
        except UnofferedCall as refusal:
            self._refuse(refusal, source.marked()[begin:])
        except MalformedCall as refusal:
            sink.cancel()
            source.unread(source.marked()[begin:])
            yield from _to_tag(source, tags, ends) if tags else self._skip_member(ends)
            self._refuse(refusal, source.marked()[begin:])
        else:
            self._mark()
            self._emit_refused()

    def end(self) -> None:
        """End the block.

        Raises:
            MalformedCall: No member is a call, and one was refused.
        """
        if self._refused and not self.has_calls:
            self._rewind()
            raise self._refused[0][0]

    def _rewind(self) -> None:
        """Make the refused members part of the block's text again."""
        if self._refused:
            _, _, (begin, _) = self._refused[0]
            self._sink.rewind_block(begin)

    def _refuse(self, refusal: MalformedCall, text: str) -> None:
        self._refused.append((refusal, text, self._sink.part_of_block(self._source.place)))
        if self.has_calls:
            self._emit_refused()
            self._mark()

    def _mark(self) -> None:
        """Discard the text of a call that was read; a draft may still become text as a whole."""
        if self.has_calls and not self._sink.is_draft:
            self._source.mark()

    def _emit_refused(self) -> None:
        refused, self._refused = self._refused, []
        for refusal, text, span in refused:
            self._sink.emit_refused_part(refusal, text, span)

    def _skip_member(self, ends: Stops) -> Reader[None]:
        """Read to the end of a member: to its balanced closing bracket, else up to the next member."""
        read: list[str] = []
        if self._tries and (yield from _balanced(self._source, ends, read)):
            yield from self._source.collect_while(CLOSERS["]"])
            return
        self._tries = max(self._tries - 1, 0)
        self._source.unread("".join(read))
        yield from _before_next(self._source, ends)


def _balanced(source: Source, ends: Stops, read: list[str]) -> Reader[bool]:
    """Read up to the bracket that closes the first one; return whether there is one.

    A closing bracket also closes all brackets inside its pair.
    """
    wanted = stops(*BRACKETS, *ends.literals)
    opened: list[str] = []
    while True:
        found = yield from source.until(wanted, read.append)
        if not found or found in ends.literals:
            return False
        source.at += len(found)
        read.append(found)
        if found in "\"'":
            if not (yield from _is_string(source, found, read)):
                return False
        elif found not in OPENED_BY:
            opened.append(found)
        elif not _closes(found, opened):
            return False
        elif not opened:
            return True


def _closes(bracket: str, opened: list[str]) -> bool:
    """Close the last open bracket of this kind and those inside it; return whether there is one."""
    while opened:
        if opened.pop() == OPENED_BY[bracket]:
            return True
    return False


def _is_string(source: Source, quote: str, read: list[str]) -> Reader[bool]:
    """Read up to the end of a string; return False if it is the text between two strings."""
    wanted, begin = stops(quote, "\\"), len(read)
    while True:
        found = yield from source.until(wanted, read.append)
        if not found:
            return False
        source.at += 1
        read.append(found)
        if found == quote:
            return MEMBERS.search("".join(read[begin:])) is None
        if (yield from source.fill()):
            read.append(source.text[source.at])
            source.at += 1


def _to_tag(source: Source, tags: Stops, ends: Stops) -> Reader[None]:
    """Read up to an end tag, and the tag itself, or up to `ends`."""
    wanted = stops(*tags.literals, *ends.literals)
    source.at += 1  # the member may begin with one of `ends`
    found = yield from source.until(wanted, len)
    if not found:
        raise TruncatedCall
    if found in tags.literals:
        source.at += len(found)


def _before_next(source: Source, ends: Stops) -> Reader[None]:
    """Read up to a closing bracket before the next member, the block's end, or `ends`.

    Raises:
        TruncatedCall: The text ended first.
    """
    wanted = stops("}", ")", *ends.literals)
    while True:
        found = yield from source.until(wanted, len)
        if not found:
            raise TruncatedCall
        if found in ends.literals:
            return
        source.at += 1
        while NEXT_MEMBER.match(source.text, source.at, source.at + LOOKAHEAD) is None:
            if source.closed and not source.text[source.at :].strip():
                return
            if source.closed or len(source.text) - source.at >= LOOKAHEAD:
                break
            yield
        else:
            return


def extra_closers(source: Source, sink: Sink, block_closer: str = "") -> Reader[None]:
    """Read superfluous closing brackets after a complete call, and report them.

    The closing bracket of the block stays unread.
    """
    begin = source.place
    extra = yield from source.collect_while(CLOSERS[block_closer])
    if extra and sink.is_open:
        sink.note(f"superfluous {extra!r}")
    elif extra:
        name = sink.completed[-1].name if sink.completed else ""
        detail = f"After the call of {name!r}: superfluous {extra!r}"
        sink.report("repaired", detail, extra, (begin, source.place))
