"""Calls as Python: `name(key=literal, …)`, one or several.

Each reader begins at the first character of its text and ends directly after the last.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.json_calls import json_arguments, json_member, json_text
from lmdeck._parsing.literals import LiteralReader
from lmdeck._parsing.members import Block, extra_closers
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import (
    MAX_UNREAD,
    MalformedCall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
    stops,
)

PYTHON_LIST = late_pattern(r"\[\s*([A-Za-z_][\w.\-]*)\(")
PARTIAL_LIST = late_pattern(r"\[\s*[\w.\-]*")
IDENTIFIER = late_pattern(r"[\w.\-]*")


def first_name_in_list(source: Source, distance: int = 0) -> Reader[str]:
    """Return the name of the first call in a list that begins `distance` characters ahead.

    It is `""` if no list of calls begins there.
    """
    while True:
        begin = source.at + distance
        ahead = source.text[begin : begin + MAX_UNREAD]
        if found := PYTHON_LIST.match(ahead):
            return found.group(1)
        if source.closed or len(ahead) == MAX_UNREAD or not PARTIAL_LIST.fullmatch(ahead):
            return ""
        yield


def python_calls(source: Source, sink: Sink, ends: Stops, *, closer: str) -> Reader[None]:
    """Read `name(key=literal, …)`, separated by commas or newlines.

    The list ends with `closer`, which is read as well, or before one of `ends`.
    """
    block = Block(source, sink)
    while True:
        char = yield from source.skip_space()
        if char and char == closer:
            source.at += 1
            if block.has_calls:
                yield from extra_closers(source, sink)
            break
        if not char or (yield from source.ahead(ends)):
            break
        if char in ",;":
            source.at += 1
        elif char in ")}]" and block.has_calls:
            yield from extra_closers(source, sink, closer)
        elif char == "{":
            yield from block.member(json_member(source, sink, ends), ends)
        else:
            yield from block.member(_python_call(source, sink, ends, closer), ends)
    block.end()


def _python_call(source: Source, sink: Sink, ends: Stops, closer: str) -> Reader[None]:
    name = yield from source.collect_while(IDENTIFIER)
    char = yield from source.skip_space()
    if not char:
        raise TruncatedCall
    if char != "(" or not name:
        raise MalformedCall(f"{(name or char)[:80]!r} is not a call")
    source.at += 1
    yield from python_call(source, sink, ends, name, closer=closer)


def python_call(source: Source, sink: Sink, ends: Stops, name: str, *, closer: str = "") -> Reader[None]:
    """Read `key=literal, …)` after the opening bracket, or `{…})`.

    `closer` ends the list around the call.
    """
    sink.open(name)
    sink.flush()
    if (yield from source.skip_space()) == "{":
        sink.note("an object instead of keywords")
        yield from json_arguments(source, sink.write, sink, ends, enclosing=")" + closer)
        yield from source.skip_space()
        if not (yield from source.take(stops(")"))) and (yield from source.peek()):
            raise MalformedCall("more than one positional argument")
        sink.close()
        return
    sink.write("{")
    is_first = True
    while True:
        char = yield from source.skip_space()
        if char == ")":
            source.at += 1
            break
        if char == ",":
            source.at += 1
            continue
        if not char:
            raise TruncatedCall
        if not is_first and (yield from source.ahead(ends)):
            sink.note("a missing closing bracket")
            break
        yield from _keyword(source, sink, ends, closer, is_first=is_first)
        is_first = False
    sink.write("}")
    sink.close()


def _keyword(source: Source, sink: Sink, ends: Stops, closer: str, *, is_first: bool) -> Reader[None]:
    key = yield from json_text(source, sink.note, is_key=True)
    char = yield from source.skip_space()
    if char not in ("=", ":"):
        if not char:
            raise TruncatedCall
        raise MalformedCall(f"{key[:80]!r} is not a keyword argument")
    source.at += 1
    sink.write_key(key, is_first=is_first)
    yield from LiteralReader(source, sink.write, sink.note, python=True, ends=ends, enclosing=")" + closer).read()
