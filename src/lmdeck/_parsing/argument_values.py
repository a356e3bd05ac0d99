"""Decode the JSON text of arguments, and report what had to be repaired."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Never

import msgspec

VALUE_CHARS = 200


def decode_arguments(raw: str) -> Any:
    """Return the value of JSON text, or None for other text.

    Lone surrogates become U+FFFD; numbers must be finite.
    """
    return decode_repaired(raw)[0]


def decode_repaired(raw: str) -> tuple[Any, bool]:
    """Return the same value as `decode_arguments`, and whether `raw` had to be repaired."""
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
    """Return a note for each value in JSON text that a later value with the same key replaces."""
    notes: list[str] = []

    def collect(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            last = {key: at for at, (key, _) in enumerate(pairs)}
            notes.extend(
                f"the key {key!r} is repeated, and an earlier value was left out: {repr(value)[:VALUE_CHARS]}"
                for at, (key, value) in enumerate(pairs)
                if at != last[key]
            )
        return values

    if raw.count(":") > 1:
        with suppress(ValueError, RecursionError):  # text that was repaired, or is nested too deeply for `json`
            json.loads(raw, object_pairs_hook=collect)
    return notes


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large")
    return number
