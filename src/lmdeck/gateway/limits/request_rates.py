"""Requests per minute in a moving window, in memory or in Redis.

In Redis, one script counts and returns what is left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from lmdeck.gateway.limits.redis import answering
from lmdeck.gateway.limits.windows import Balance

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["MemoryRates", "RedisRates", "RequestRates"]

NAME = "requests_per_minute"

# KEYS: the times of the requests of the last minute, the newest first. ARGV: the limit. It returns whether the request was
# counted, the number of requests, and the seconds until one more is free.
_HIT = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local limit = tonumber(ARGV[1])
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - 60 do
  redis.call('RPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
local used = redis.call('LLEN', KEYS[1])
if used >= limit then
  local leaves = redis.call('LINDEX', KEYS[1], limit - 1)
  return {0, used, tostring(tonumber(leaves) + 60 - now)}
end
redis.call('LPUSH', KEYS[1], string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], 61)
return {1, used + 1, tostring(oldest and tonumber(oldest) + 60 - now or 60)}
"""


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
        return is_counted, _balance(limit, window.remaining, max(window.reset_time - time.time(), 0.0))


class RedisRates:
    """Rates that all workers share, counted by the clock of Redis."""

    def __init__(self, url: str, redis: Redis, prefix: str = "lmdeck-rates") -> None:
        self._url = url
        self._prefix = prefix
        self._hit = redis.register_script(_HIT)

    async def hit(self, account: str, limit: int) -> tuple[bool, Balance]:
        """Count a request; see `RequestRates.hit`.

        Raises:
            ServerError: Redis does not answer.
        """
        async with answering(self._url):
            is_counted, used, wait = await self._hit(keys=[f"{self._prefix}:{{{account}}}"], args=[limit])
        return bool(is_counted), _balance(limit, max(limit - used, 0), float(wait))


def _balance(limit: int, remaining: int, wait: float) -> Balance:
    """Return the balance; in a moving window, the oldest request is the next to leave it."""
    return Balance(name=NAME, limit=limit, remaining=remaining, reset=wait, wait=wait)
