"""The limits of keys on requests, tokens and running requests, checked together."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from msgspec import Struct

from lmdeck._usage_store import Key
from lmdeck.errors import RateLimitError
from lmdeck.gateway.admission import AdmissionRefused
from lmdeck.gateway.limits.budgets import PARALLEL, Budgets, MemoryBudgets, Reservation, counted_windows
from lmdeck.gateway.limits.redis import RedisBudgets, connect
from lmdeck.gateway.limits.request_rates import NAME as REQUESTS
from lmdeck.gateway.limits.request_rates import MemoryRates, RedisRates, RequestRates
from lmdeck.gateway.limits.windows import RUNNING_SECONDS, Balance

__all__ = ["MEMORY", "Admitted", "Limiter", "rate_limit_headers"]

MEMORY = "memory:"
MAX_RETRY_SECONDS = 60  # the clients of OpenAI and Anthropic do not wait longer before they try again
_NOTHING = Reservation(id="", tokens=0)
_SENTENCES = {
    PARALLEL: ("may have {limit:,} requests running at once", "rate_limit_exceeded"),
    REQUESTS: ("may send {limit:,} requests a minute", "rate_limit_exceeded"),
    "tokens_per_minute": ("may use {limit:,} tokens a minute", "rate_limit_exceeded"),
    "tokens_per_day": ("may use {limit:,} tokens a day (UTC)", "insufficient_quota"),
}


class Admitted(Struct, frozen=True, kw_only=True):
    """A request that may start, with its reservation and the remaining limits."""

    key: Key
    reservation: Reservation
    balances: tuple[Balance, ...]


class Limiter:
    """The limits of all keys, counted in this process, or in Redis for all workers."""

    def __init__(self, budgets: Budgets, rates: RequestRates, disconnect: Callable[[], Awaitable[object]]) -> None:
        self._budgets = budgets
        self._rates = rates
        self._disconnect = disconnect

    @classmethod
    def open(cls, url: str = MEMORY) -> Limiter:
        """Return limits counted in this process (`memory:`), or in Redis (`redis://…`).

        Raises:
            ConfigurationError: The address is wrong, or the package redis is missing.
        """
        if url == MEMORY:
            return cls(MemoryBudgets(), MemoryRates(), _no_connection)
        redis = connect(url)
        return cls(RedisBudgets(url, redis), RedisRates(url, redis), redis.aclose)

    async def admit(self, key: Key, tokens: int, spent: int = 0) -> Admitted:
        """Count a request and reserve its tokens.

        `spent` are the key's tokens of today according to the store.

        Raises:
            AdmissionRefused: A limit is reached; the error is a `RateLimitError`.
            ServerError: The limits cannot be checked.
        """
        limits = key.limits
        reservation = _NOTHING
        if limits.parallel is not None or counted_windows(limits):
            reservation = await self._budgets.reserve(key.name, limits, tokens, spent)
        if reservation.refused:
            raise _refusal(key, reservation.refused, reservation.balances)
        if limits.requests_per_minute is None:
            return Admitted(key=key, reservation=reservation, balances=reservation.balances)
        try:
            is_counted, requests = await self._rates.hit(key.name, limits.requests_per_minute)
            if not is_counted:
                raise _refusal(key, REQUESTS, (requests, *reservation.balances))
        except BaseException:
            await self._free(key, reservation, 0)
            raise
        return Admitted(key=key, reservation=reservation, balances=(requests, *reservation.balances))

    async def settle(self, admitted: Admitted, tokens: int) -> None:
        """Release the reservation and count the tokens used.

        Raises:
            ServerError: The limits cannot be reached.
        """
        await self._free(admitted.key, admitted.reservation, tokens)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._budgets.aclose()
        await self._disconnect()

    async def _free(self, key: Key, reservation: Reservation, tokens: int) -> None:
        if reservation is not _NOTHING:
            await self._budgets.settle(key.name, key.limits, reservation, tokens)


def _refusal(key: Key, name: str, balances: tuple[Balance, ...]) -> AdmissionRefused:
    """Return the refusal by a limit; `Retry-After` is in whole seconds (RFC 9110, 10.2.3)."""
    reached = next((each for each in balances if each.name == name), None)
    limit, wait = (key.limits.parallel, RUNNING_SECONDS) if reached is None else (reached.limit, reached.wait)
    seconds = max(math.ceil(wait), 1)
    sentence, code = _SENTENCES[name]
    if reached is not None and reached.is_reserved:
        sentence, code = f"{sentence}, and its running requests have reserved the rest", "rate_limit_exceeded"
    error = RateLimitError(
        f"The key {key.name!r} {sentence.format(limit=limit)}.",
        status=429,
        type="rate_limit_error",
        code=code,
        retry_after=float(seconds),
        hint=f"Wait {seconds} s, or ask the gateway's operator for a higher limit.",
    )
    should_retry = "true" if seconds <= MAX_RETRY_SECONDS else "false"
    return AdmissionRefused(error, {**rate_limit_headers(balances), "x-should-retry": should_retry})


def rate_limit_headers(balances: tuple[Balance, ...]) -> dict[str, str]:
    """Return the headers that report its limits to a client.

    Of two limits on tokens, they report the one with less left.
    """
    requests = [each for each in balances if each.name == REQUESTS]
    tokens = sorted((each for each in balances if each.name != REQUESTS), key=lambda each: each.remaining)
    headers: dict[str, str] = {}
    for what, found in (("requests", requests), ("tokens", tokens)):
        for each in found[:1]:
            headers[f"x-ratelimit-limit-{what}"] = str(each.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(each.remaining)
            headers[f"x-ratelimit-reset-{what}"] = f"{math.ceil(each.reset)}s"
    return headers


async def _no_connection() -> None:
    """Do nothing: limits in memory have no connection."""
