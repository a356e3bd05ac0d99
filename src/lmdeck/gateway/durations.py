"""Durations in configuration and options: `2s`, `5m`, `12h`, `90d`."""

from __future__ import annotations

import re

__all__ = ["duration_text", "seconds_of"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 100 * 365 * 86400.0
WANTED = "a duration such as 2s, 5m, 12h or 90d"


def seconds_of(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: The text is not a duration above 0 and below 100 years; the message says what it must be.
    """
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= LONGEST:
        raise ValueError(WANTED)
    return seconds


def duration_text(seconds: float) -> str:
    """Return a duration with its largest whole unit, such as `90d`, `36h` or `1.5s`."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"
