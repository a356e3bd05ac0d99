"""Budgets in Redis (or Valkey), shared by all workers and machines.

Each decision is one script, which Redis runs atomically and by its own clock. A reservation has a lease that its worker
renews, so the reservations of a killed worker expire.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from lmdeck._secret import redact_url
from lmdeck._usage_store import KeyLimits
from lmdeck.errors import ConfigurationError, ServerError, describe
from lmdeck.gateway.limits.budgets import Reservation, counted_windows
from lmdeck.gateway.limits.windows import balance

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisBudgets", "answering", "connect"]

_log = logging.getLogger("lmdeck.gateway")
LEASE_SECONDS = 60.0
ANSWER_SECONDS = 2.0

# KEYS: running requests, then one hash of slots for each window. ARGV: id, reserved tokens, lease, parallel or -1, and for each
# window the seconds of a slot, the number of slots, the limit, and the tokens to begin with.
_RESERVE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local running, requests, refused = 0, 0, 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  running = running + tonumber(string.match(member, '%d+$'))
  requests = requests + 1
end
if tonumber(ARGV[4]) >= 0 and requests >= tonumber(ARGV[4]) then refused = 1 end
local windows = {}
for w = 1, #KEYS - 1 do
  local key, at = KEYS[w + 1], 4 * w
  local seconds, slots = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local limit, spent = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local current = math.floor(now / seconds)
  if spent > 0 and redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, current, spent)
    redis.call('EXPIRE', key, seconds * slots + 1)
  end
  local used, kept = running, {}
  local held = redis.call('HGETALL', key)
  for i = 1, #held, 2 do
    if tonumber(held[i]) <= current - slots or tonumber(held[i]) > current then
      redis.call('HDEL', key, held[i])
    else
      used = used + tonumber(held[i + 1])
      kept[#kept + 1] = held[i]
      kept[#kept + 1] = held[i + 1]
    end
  end
  if refused == 0 and used >= limit then refused = w + 1 end
  windows[w] = table.concat(kept, ' ')
end
if refused == 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
  redis.call('EXPIRE', KEYS[1], 2 * tonumber(ARGV[3]))
  running = running + tonumber(ARGV[2])
  requests = requests + 1
end
return {refused, tostring(now), running, requests, windows}
"""

# KEYS as above. ARGV: id, used tokens, and for each window the seconds of a slot and the number of slots.
_SETTLE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREM', KEYS[1], ARGV[1])
for w = 1, #KEYS - 1 do
  local seconds, slots = tonumber(ARGV[2 * w + 1]), tonumber(ARGV[2 * w + 2])
  redis.call('HINCRBY', KEYS[w + 1], math.floor(now / seconds), ARGV[2])
  redis.call('EXPIRE', KEYS[w + 1], seconds * slots + 1)
end
"""


def connect(url: str) -> Redis:
    """Return a client of a Redis server; it connects with the first command.

    Raises:
        ConfigurationError: The package redis is missing, or the address is wrong.
    """
    try:
        from redis.asyncio import Redis
    except ImportError as error:
        raise ConfigurationError(
            "Limits in Redis need the package redis, which is not installed.",
            hint='Install it with `pip install "lmdeck[redis]"`.',
        ) from error
    try:
        return Redis.from_url(
            url, decode_responses=True, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
        )
    except ValueError as error:
        raise ConfigurationError(
            f"`[limits] url` is {redact_url(url)!r}, which is not the address of a Redis server.",
            hint="Write redis://host:6379/0, or memory: for one worker.",
        ) from error


def _unreachable(url: str, reason: object) -> ServerError:
    """Return the error for limits that cannot be checked."""
    return ServerError(
        f"The limits cannot be checked: {redact_url(url)} does not answer: {describe(str(reason))}.",
        status=503,
        code="limits_unavailable",
        retry_after=1.0,
        hint="Send the request again. If it fails repeatedly, the operator must check the Redis server at `[limits] url`.",
    )


@asynccontextmanager
async def answering(url: str) -> AsyncIterator[None]:
    """Run commands on the Redis server at an address.

    Raises:
        ServerError: It does not answer.
    """
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError) as error:
        raise _unreachable(url, error) from error


class RedisBudgets:
    """Budgets that all workers share.

    `url` is the address of Redis; all of its keys begin with `prefix`.
    """

    def __init__(self, url: str, redis: Redis, prefix: str = "lmdeck") -> None:
        self._url = url
        self._prefix = prefix
        self._redis = redis
        self._reserve = self._redis.register_script(_RESERVE)
        self._settle = self._redis.register_script(_SETTLE)
        self._worker = secrets.token_hex(4)
        self._ids = count()
        self._running: dict[str, str] = {}
        self._renewal: asyncio.Task[None] | None = None

    async def reserve(self, account: str, limits: KeyLimits, tokens: int, spent: int = 0) -> Reservation:
        """Reserve tokens; see `Budgets.reserve`.

        Raises:
            ServerError: Redis does not answer.
        """
        windows = counted_windows(limits)
        id_ = f"{self._worker}-{next(self._ids)}:{tokens}"
        arguments: list[Any] = [id_, tokens, LEASE_SECONDS, -1 if limits.parallel is None else limits.parallel]
        for window, limit in windows:
            arguments += [window.slot_seconds, window.slots, limit, spent if window.slots == 1 else 0]
        async with answering(self._url):
            refused, now, reserved, running, held = await self._reserve(
                keys=self._names(account, limits), args=arguments
            )
        names = ["", "parallel", *(window.name for window, _ in windows)]
        if not refused:
            self._running[id_] = self._names(account, limits)[0]
            self._start_renewal()
        return Reservation(
            id=id_,
            tokens=tokens,
            refused=names[refused],
            running=running,
            balances=tuple(
                balance(window, limit, _slots(text), reserved, float(now))
                for (window, limit), text in zip(windows, held, strict=True)
            ),
        )

    async def settle(self, account: str, limits: KeyLimits, reservation: Reservation, tokens: int) -> None:
        """Count what was used; see `Budgets.settle`.

        Raises:
            ServerError: Redis does not answer.
        """
        if self._running.pop(reservation.id, None) is None:
            return
        arguments: list[Any] = [reservation.id, tokens]
        for window, _ in counted_windows(limits):
            arguments += [window.slot_seconds, window.slots]
        async with answering(self._url):
            await self._settle(keys=self._names(account, limits), args=arguments)

    async def aclose(self) -> None:
        """Stop renewing leases."""
        if self._renewal is not None:
            self._renewal.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewal

    def _names(self, account: str, limits: KeyLimits) -> list[str]:
        """Return the Redis keys; the braces keep those of an account on one node of a cluster."""
        root = f"{self._prefix}:{{{account}}}"
        return [f"{root}:running", *(f"{root}:{window.name}" for window, _ in counted_windows(limits))]

    def _start_renewal(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Renew the leases of the running requests, until there are none."""
        while self._running:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                async with answering(self._url), self._redis.pipeline(transaction=False) as commands:
                    now = int((await self._redis.time())[0])
                    for id_, name in self._running.items():
                        commands.zadd(name, {id_: now + LEASE_SECONDS}, xx=True)
                        commands.expire(name, int(2 * LEASE_SECONDS))
                    await commands.execute()
            except ServerError as error:
                _log.warning("%s", error)


def _slots(text: str) -> dict[int, int]:
    """Return the tokens of each slot, from a text of slots and tokens.

    One text is cheaper to read than many numbers.
    """
    numbers = [int(number) for number in text.split()]
    return dict(zip(numbers[::2], numbers[1::2], strict=True))
