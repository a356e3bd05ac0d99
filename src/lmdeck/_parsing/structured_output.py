"""Read JSON in a model's answer: alone, fenced or in prose, whole or partial.

It is repaired if necessary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lmdeck._parsing.argument_values import decode_arguments
from lmdeck._parsing.literals import LiteralReader
from lmdeck._parsing.source import MalformedCall, NotACall, Source, TruncatedCall, run_whole

NOTHING: Any = object()
FENCE = re.compile(r"```(?:json[5c]?)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)
PIECES = re.compile(r"\\.|[\"{}\[\]]")
WAITING_KEY = re.compile(r'(?<=[{,])\s*"(?:[^"\\]|\\.)*"\s*:?\s*\Z')
OPENING = re.compile(r"[{\[]")
TRIES = 20


def json_values(text: str) -> Iterator[tuple[Any, str]]:
    """Yield the JSON values that a text may mean, the most likely first.

    Each comes with a note on how it was read, or `""`. At most `TRIES` positions are tried, so that the cost is linear.
    """
    bare = text.strip()
    value = _strict(bare)
    if value is not NOTHING:
        yield value, ""
    for fence in list(FENCE.finditer(text))[:TRIES]:
        yield from _read(fence.group(1).strip(), "extracted from a code fence")
    at = 0
    for _ in range(TRIES):
        found = OPENING.search(bare, at)
        if found is None:
            break
        value, end, notes = _repaired(bare, found.start())
        if value is not NOTHING:
            yield value, _notes_of("extracted from prose" if found.start() or bare[end:].strip() else "", notes)
            at = max(end, found.end())
        else:
            at = found.end()
    if bare and bare[0] not in "{[":
        yield bare, "read as text"


def partial_value(text: str) -> Any:
    """Return the JSON value received so far, with open strings, arrays and objects closed.

    It is `NOTHING` before the value begins.
    """
    found = OPENING.search(text)
    if found is None:
        return NOTHING
    parts: list[str] = []
    source = Source(text, closed=True)
    source.at = found.start()
    with suppress(MalformedCall, NotACall, TruncatedCall):
        run_whole(LiteralReader(source, parts.append, str, closes_at_end=True).read())
    return _closed("".join(parts))


def _closed(prefix: str) -> Any:
    """Decode the beginning of a JSON text.

    Open parts are closed, and a key without a value is left out.
    """
    closers: list[str] = []
    in_string = False
    for piece in PIECES.findall(prefix):
        if piece == '"':
            in_string = not in_string
        elif in_string:
            continue
        elif piece in "{[":
            closers.append("}" if piece == "{" else "]")
        else:
            closers.pop()
    end = "".join(reversed(closers))
    for candidate in (prefix + '"' * in_string, WAITING_KEY.sub("", prefix + '"' * in_string)):
        value = _strict(candidate.rstrip().rstrip(",") + end)
        if value is not NOTHING:
            return value
    return NOTHING


def _read(text: str, how: str) -> Iterator[tuple[Any, str]]:
    value = _strict(text)
    if value is not NOTHING:
        yield value, how
        return
    found = OPENING.match(text)
    if found:
        value, _, notes = _repaired(text, 0)
        if value is not NOTHING:
            yield value, _notes_of(how, notes)


def _notes_of(how: str, notes: list[str]) -> str:
    repaired = f"repaired: {', '.join(dict.fromkeys(notes))}" if notes else ""
    return ", ".join(part for part in (how, repaired) if part)


def _strict(text: str) -> Any:
    value = decode_arguments(text) if text else None
    return value if value is not None or text == "null" else NOTHING


def _repaired(text: str, at: int) -> tuple[Any, int, list[str]]:
    """Read the value at a position; return it, its end, and what was repaired."""
    source, parts, notes = Source(text, closed=True), list[str](), list[str]()
    source.at = at
    try:
        run_whole(LiteralReader(source, parts.append, notes.append, closes_at_end=True).read())
    except (MalformedCall, NotACall, TruncatedCall):
        return NOTHING, at, notes
    return _strict("".join(parts)), source.at, notes
