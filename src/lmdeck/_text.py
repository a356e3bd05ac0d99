"""Conversion of text and JSON into what every file, database and reader can store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 100
INTEGERS = range(-(2**63), 2**64)


def replace_lone_surrogates(text: str) -> str:
    """Return text with lone surrogates replaced by U+FFFD, and pairs joined.

    Files and databases can store such text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def storable_text(text: str) -> str:
    """Return text with NUL and lone surrogates, which databases refuse, replaced by U+FFFD."""
    return replace_lone_surrogates(text).replace("\x00", "\ufffd")


def storable_json(value: object, depth: int = MAX_DEPTH) -> Any:  # JSON is anything
    """Return a value as JSON data that every database can store.

    Text is made storable, infinities and integers beyond 64 bits become text, and values nested deeper than 100 become None.
    """
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if value in INTEGERS else f"{value:#x}"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {storable_text(str(key)): storable_json(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(each, depth - 1) for each in value]
    return storable_text(str(value))
