"""Decode the JSON text of arguments: what it holds, and what of it had to be repaired."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Never

import msgspec

SHOWN = 200


def decode_arguments(raw: str) -> Any:
    """Return the value of JSON text, None for other text.
    Lone surrogates become U+FFFD; numbers must be finite.
    """
    return decode_repaired(raw)[0]


def decode_repaired(raw: str) -> tuple[Any, bool]:
    """Return the value as `decode_arguments` does, and whether `raw` had to be repaired for it."""
    try:
        return msgspec.json.decode(raw), False
    except (msgspec.DecodeError, UnicodeError):
        pass
    except RecursionError:
        return None, False
    try:
        value = json.loads(raw, parse_constant=_refuse, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False)
        repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return json.loads(repaired), repaired != text
    except (ValueError, RecursionError):
        return None, False


def repeated_keys(raw: str) -> list[str]:
    """Return a note for each value in JSON text that a later one with the same key replaces."""
    notes: list[str] = []

    def collect(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            last = {key: at for at, (key, _) in enumerate(pairs)}
            notes.extend(
                f"the key {key!r} came again, and an earlier value was left out: {repr(value)[:SHOWN]}"
                for at, (key, value) in enumerate(pairs)
                if at != last[key]
            )
        return values

    if raw.count(":") > 1:
        with suppress(ValueError, RecursionError):  # of text that was repaired, or that only msgspec nests so deeply
            json.loads(raw, object_pairs_hook=collect)
    return notes


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number
