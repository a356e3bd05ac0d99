"""Requests per minute, by the moving window of the package `limits`, in memory or in Redis."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter as SharedMovingWindow
from limits.errors import StorageError
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from lmdeck.gateway.limits.redis import unreachable
from lmdeck.gateway.limits.windows import Balance

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["MemoryRates", "RedisRates", "RequestRates"]

NAME = "requests_per_minute"


class RequestRates(Protocol):
    """Where requests are counted; `account` is the name of a key."""

    async def hit(self, account: str, limit: int) -> tuple[bool, Balance]:
        """Count a request unless the limit is reached.
        Return whether it was counted, and what is left.

        Raises:
            ServerError: The limits cannot be checked.
        """
        ...


class MemoryRates:
    """Rates in the memory of one process."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def hit(self, account: str, limit: int) -> tuple[bool, Balance]:
        """Count a request; see `RequestRates.hit`."""
        item = RateLimitItemPerMinute(limit)
        is_counted = self._limiter.hit(item, account)
        window = self._limiter.get_window_stats(item, account)
        return is_counted, _balance(limit, window.remaining, window.reset_time)


class RedisRates:
    """Rates that all workers share."""

    def __init__(self, url: str, redis: Redis) -> None:
        self._url = url
        options: dict[str, Any] = {"connection_pool": redis.connection_pool}
        storage = RedisStorage(  # the pool has the address: `limits` does not know all forms of it
            "async+redis://", wrap_exceptions=True, implementation="redispy", key_prefix="lmdeck-rates", **options
        )
        self._limiter = SharedMovingWindow(storage)

    async def hit(self, account: str, limit: int) -> tuple[bool, Balance]:
        """Count a request; see `RequestRates.hit`.

        Raises:
            ServerError: Redis does not answer.
        """
        item = RateLimitItemPerMinute(limit)
        try:
            is_counted = await self._limiter.hit(item, account)
            window = await self._limiter.get_window_stats(item, account)
        except StorageError as error:
            raise unreachable(self._url, error) from error
        return is_counted, _balance(limit, window.remaining, window.reset_time)


def _balance(limit: int, remaining: int, reset_time: float) -> Balance:
    """Return the balance; in a moving window, the oldest request is the next to leave it."""
    wait = max(reset_time - time.time(), 0.0)
    return Balance(name=NAME, limit=limit, remaining=remaining, reset=wait, wait=wait)
