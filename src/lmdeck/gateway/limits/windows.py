"""Windows of time over which tokens are counted.

Tokens are counted in slots of whole seconds; a window is the current slot and some before it. The minute is 61 slots of a
second, so it never covers less than 60 seconds; the day is one slot, a day in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["WINDOWS", "Balance", "Window", "balance"]

RUNNING_SECONDS = 1.0
"""The time to wait if only running requests hold the budget: the time of their end is unknown."""


class Window(Struct, frozen=True):
    """The last `slots` slots of `slot_seconds` each.

    `name` is the limit of `KeyLimits` that it counts for.
    """

    name: str
    slot_seconds: int
    slots: int

    def slot(self, now: float) -> int:
        """Return the slot of a time in seconds since 1970."""
        return int(now // self.slot_seconds)

    def end(self, slot: int) -> float:
        """Return the time at which a slot leaves the window."""
        return float((slot + self.slots) * self.slot_seconds)


WINDOWS = (Window("tokens_per_minute", 1, 61), Window("tokens_per_day", 86400, 1))


class Balance(Struct, frozen=True, kw_only=True):
    """What is left of a limit.

    `reset` is the time in seconds until all of it is free, `wait` until some of it is.

    `is_reserved` is whether only the reservations of running requests prevent another one.
    """

    name: str
    limit: int
    remaining: int
    reset: float
    wait: float
    is_reserved: bool = False


def balance(window: Window, limit: int, used: Mapping[int, int], running: int, now: float) -> Balance:
    """Return the balance of a window, from the tokens of its slots and the reserved tokens."""
    live = sorted((slot, tokens) for slot, tokens in used.items() if tokens and window.end(slot) > now)
    unused = limit - sum(tokens for _, tokens in live)
    return Balance(
        name=window.name,
        limit=limit,
        remaining=max(unused - running, 0),
        reset=window.end(live[-1][0]) - now if live else 0.0,
        wait=_wait(window, live, unused, running, now),
        is_reserved=0 < unused <= running,
    )


def _wait(window: Window, live: list[tuple[int, int]], unused: int, running: int, now: float) -> float:
    """Return the time until some of a limit is free; `unused` tokens of it are left."""
    if unused > 0:
        return 0.0 if unused > running else RUNNING_SECONDS
    for slot, tokens in live:
        unused += tokens
        if unused > 0:
            return window.end(slot) - now
    return RUNNING_SECONDS
