"""Budgets of tokens: reserved when a request starts, settled when it ends.

A request starts as long as something is left after what was used and what running requests have reserved, so a budget
is exceeded by at most the running requests at the moment it is used up. The number of running requests is the number of
reservations.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from msgspec import Struct, field

from lmdeck._usage_store import KeyLimits
from lmdeck.gateway.limits.windows import WINDOWS, Balance, Window, balance

__all__ = ["PARALLEL", "Budgets", "MemoryBudgets", "Reservation", "counted_windows"]

PARALLEL = "parallel"


class Reservation(Struct, frozen=True, kw_only=True):
    """The result of `Budgets.reserve`.

    `refused` is the name of the limit that refuses it, or `""`.
    """

    id: str
    tokens: int
    refused: str = ""
    running: int = 0
    balances: tuple[Balance, ...] = ()


class Budgets(Protocol):
    """Where tokens and running requests are counted; `account` is the name of a key.

    `spent` are the tokens that the account has used today according to the store; they count if today's use is not yet
    known here.
    """

    async def reserve(self, account: str, limits: KeyLimits, tokens: int, spent: int = 0) -> Reservation:
        """Reserve tokens and count one more running request, unless a limit is reached.

        Raises:
            ServerError: The limits cannot be checked.
        """
        ...

    async def settle(self, account: str, limits: KeyLimits, reservation: Reservation, tokens: int) -> None:
        """Release the reservation and count the tokens used; a second call releases nothing more."""
        ...

    async def aclose(self) -> None:
        """Stop background tasks."""
        ...


def counted_windows(limits: KeyLimits) -> list[tuple[Window, int]]:
    """Return the windows for which a key has a limit, with the limit."""
    found = ((window, getattr(limits, window.name)) for window in WINDOWS)
    return [(window, limit) for window, limit in found if limit is not None]


class _Account(Struct):
    """The running requests of a key, and its use of each window.

    Running requests have their reserved tokens, windows the used tokens of each slot.
    """

    running: dict[str, int] = field(default_factory=dict)
    used: dict[str, dict[int, int]] = field(default_factory=dict)


class MemoryBudgets:
    """Budgets in the memory of one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ids = count()
        self._accounts: dict[str, _Account] = {}

    async def reserve(self, account: str, limits: KeyLimits, tokens: int, spent: int = 0) -> Reservation:
        """Reserve tokens; see `Budgets.reserve`."""
        state = self._accounts.setdefault(account, _Account())
        now = self._clock()
        refused = PARALLEL if limits.parallel is not None and len(state.running) >= limits.parallel else ""
        for window, limit in counted_windows(limits):
            running = sum(state.running.values())
            if (
                not refused
                and balance(window, limit, self._slots(state, window, now, spent), running, now).remaining <= 0
            ):
                refused = window.name
        id_ = str(next(self._ids))
        if not refused:
            state.running[id_] = tokens
        running = sum(state.running.values())
        return Reservation(
            id=id_,
            tokens=tokens,
            refused=refused,
            running=len(state.running),
            balances=tuple(
                balance(window, limit, state.used[window.name], running, now)
                for window, limit in counted_windows(limits)
            ),
        )

    async def settle(self, account: str, limits: KeyLimits, reservation: Reservation, tokens: int) -> None:
        """Count what was used; see `Budgets.settle`."""
        state = self._accounts.setdefault(account, _Account())
        if state.running.pop(reservation.id, None) is None:
            return
        now = self._clock()
        for window, _ in counted_windows(limits):
            slots = self._slots(state, window, now, 0)
            slots[window.slot(now)] = slots.get(window.slot(now), 0) + tokens

    async def aclose(self) -> None:
        """Do nothing: there are no background tasks."""

    @staticmethod
    def _slots(state: _Account, window: Window, now: float, spent: int) -> dict[int, int]:
        """Return the slots of a window, without those that have expired or lie ahead.

        They lie ahead if the clock was set back. A new day begins with `spent`.
        """
        current = window.slot(now)
        slots = state.used.setdefault(window.name, {})
        for slot in [slot for slot in slots if window.end(slot) <= now or slot > current]:
            del slots[slot]
        if window.slots == 1:
            slots.setdefault(current, spent)
        return slots
