"""The limits of keys, counted in memory and in a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator
from itertools import chain

import pytest

from gateways import PATIENCE
from lmdeck._usage_store import Key, KeyLimits
from lmdeck.errors import ConfigurationError, RateLimitError, ServerError
from lmdeck.gateway.admission import AdmissionRefused
from lmdeck.gateway.limits.budgets import MemoryBudgets
from lmdeck.gateway.limits.limiter import Limiter, rate_limit_headers
from lmdeck.gateway.limits.windows import WINDOWS, balance

pytestmark = pytest.mark.usefixtures("one_day")
MINUTE, DAY = WINDOWS
NOON = 20_000 * 86400.0 + 43200.0


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Limiter]:
    monkeypatch.setattr("lmdeck.gateway.limits.redis.ANSWER_SECONDS", PATIENCE)  # on a busy machine, too
    url = "memory:" if request.param == "memory" else request.getfixturevalue("redis_address")
    opened = Limiter.open(url)
    yield opened
    await opened.aclose()


def a_key(**limits: int) -> Key:
    return Key(name=f"alice-{uuid.uuid4().hex[:8]}", digest="d", start="lmk_", limits=KeyLimits(**limits))


async def refused(limiter: Limiter, key: Key, tokens: int = 0) -> AdmissionRefused:
    with pytest.raises(AdmissionRefused) as caught:
        await limiter.admit(key, tokens)
    assert isinstance(caught.value.error, RateLimitError)
    assert caught.value.error.status == 429
    return caught.value


# --- what both count ------------------------------------------------------------------------------------------------------


async def test_requests_a_minute_are_counted_one_by_one(limiter: Limiter) -> None:
    """The headers say what is left, and the refusal when to come back."""
    key = a_key(requests_per_minute=3)
    left = [rate_limit_headers((await limiter.admit(key, 0)).balances) for _ in range(3)]
    assert [headers["x-ratelimit-remaining-requests"] for headers in left] == ["2", "1", "0"]
    assert left[0]["x-ratelimit-limit-requests"] == "3"
    refusal = await refused(limiter, key)
    assert "may send 3 requests a minute" in refusal.error.message
    assert 1 <= refusal.error.retry_after <= 60
    assert refusal.error.retry_after == int(refusal.error.retry_after)
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
    assert refusal.headers["x-should-retry"] == "true"


async def test_parallel_requests_are_counted_until_they_are_settled(limiter: Limiter) -> None:
    """A second settlement of a request frees nothing more."""
    key = a_key(parallel=2)
    first, second = await limiter.admit(key, 10), await limiter.admit(key, 10)
    assert "may have 2 requests running at once" in (await refused(limiter, key)).error.message
    await limiter.settle(first, 5)
    await limiter.settle(first, 5)
    third = await limiter.admit(key, 10)
    await refused(limiter, key)
    await limiter.settle(second, 5)
    await limiter.settle(third, 5)
    assert [await limiter.admit(key, 0) for _ in range(2)]


@pytest.mark.parametrize("name", ["tokens_per_minute", "tokens_per_day"])
async def test_tokens_are_reserved_and_then_settled_by_what_was_used(limiter: Limiter, name: str) -> None:
    """What a request reserved and did not use is free again when it ends."""
    key = a_key(**{name: 1000})
    first = await limiter.admit(key, 600)
    assert rate_limit_headers(first.balances)["x-ratelimit-remaining-tokens"] == "400"
    second = await limiter.admit(key, 600)
    assert rate_limit_headers(second.balances)["x-ratelimit-remaining-tokens"] == "0"
    refusal = await refused(limiter, key, 1)
    assert refusal.error.retry_after == 1
    assert "its running requests have reserved the rest" in refusal.error.message
    assert refusal.error.code == "rate_limit_exceeded"
    await limiter.settle(first, 100)
    third = await limiter.admit(key, 100)
    assert rate_limit_headers(third.balances)["x-ratelimit-remaining-tokens"] == "200"
    await limiter.settle(second, 650)
    await limiter.settle(third, 250)
    refusal = await refused(limiter, key, 1)
    assert refusal.headers["x-ratelimit-limit-tokens"] == "1000"
    assert refusal.headers["x-ratelimit-remaining-tokens"] == "0"
    if name == "tokens_per_minute":
        assert 1 <= refusal.error.retry_after <= 61
        assert refusal.error.code == "rate_limit_exceeded"
    else:
        assert refusal.error.code == "insufficient_quota"
        assert refusal.error.retry_after <= 86400
    assert refusal.headers["x-should-retry"] == ("true" if refusal.error.retry_after <= 60 else "false")


async def test_a_large_request_starts_when_anything_is_left(limiter: Limiter) -> None:
    """Otherwise a client that always asks for 32,000 tokens could never use a budget of 10,000."""
    key = a_key(tokens_per_minute=1000)
    first = await limiter.admit(key, 32_000)
    await limiter.settle(first, 999)
    second = await limiter.admit(key, 32_000)
    await limiter.settle(second, 10)
    await refused(limiter, key)


async def test_a_request_that_one_limit_refuses_uses_nothing_of_the_others(limiter: Limiter) -> None:
    """A refused request uses neither a parallel place nor tokens."""
    key = a_key(requests_per_minute=2, parallel=1, tokens_per_day=1000)
    for _ in range(2):
        await limiter.settle(await limiter.admit(key, 10), 10)
    assert "2 requests a minute" in (await refused(limiter, key)).error.message
    assert "2 requests a minute" in (await refused(limiter, key)).error.message  # not: 1 request at once


async def test_the_day_begins_with_what_the_store_says_was_spent(limiter: Limiter) -> None:
    """This holds after a restart and after Redis lost its data, until the limiter has counted by itself."""
    key = a_key(tokens_per_day=1000)
    first = await limiter.admit(key, 0, spent=900)
    assert rate_limit_headers(first.balances)["x-ratelimit-remaining-tokens"] == "100"
    await limiter.settle(first, 50)
    second = await limiter.admit(key, 0, spent=5000)
    assert rate_limit_headers(second.balances)["x-ratelimit-remaining-tokens"] == "50"


async def test_headers_state_the_tighter_of_two_token_limits(limiter: Limiter) -> None:
    """Both limits refuse."""
    key = a_key(tokens_per_minute=1000, tokens_per_day=1500)
    first = await limiter.admit(key, 0)
    assert rate_limit_headers(first.balances)["x-ratelimit-limit-tokens"] == "1000"
    await limiter.settle(first, 900)
    second = await limiter.admit(key, 0)
    await limiter.settle(second, 700)
    assert "1,000 tokens a minute" in (await refused(limiter, key)).error.message


async def test_a_key_without_limits_is_not_counted(limiter: Limiter) -> None:
    """It gets no headers of limits either."""
    key = a_key()
    for _ in range(50):
        admitted = await limiter.admit(key, 10**9)
        assert rate_limit_headers(admitted.balances) == {}
        await limiter.settle(admitted, 10**9)


async def test_keys_do_not_share_limits(limiter: Limiter) -> None:
    """Limits are separate, whatever the names of the keys are."""
    limits = KeyLimits(requests_per_minute=1, parallel=1)
    names = [f"{name}-{uuid.uuid4().hex[:6]}" for name in ("a:b", "a", "b{x}", "ä b", "a:b:running")]
    keys = [Key(name=name, digest="d", start="lmk_", limits=limits) for name in names]
    for key in keys:
        await limiter.admit(key, 1)
    for key in keys:
        await refused(limiter, key)


async def test_a_budget_is_exceeded_by_at_most_what_was_running(limiter: Limiter) -> None:
    """Fifty at once, each of which uses more than it reserved."""
    key = a_key(tokens_per_day=10_000, parallel=8)
    used = running = most_running = 0
    overrun = 150

    async def ask() -> None:
        nonlocal used, running, most_running
        while True:
            try:
                admitted = await limiter.admit(key, 100)
            except AdmissionRefused as refusal:
                if refusal.error.code == "insufficient_quota" and not running:
                    return
                await asyncio.sleep(0.001)
                continue
            running += 1
            most_running = max(most_running, running)
            await asyncio.sleep(0.002)
            used += overrun
            running -= 1
            await limiter.settle(admitted, overrun)

    await asyncio.gather(*(ask() for _ in range(50)))
    assert 10_000 <= used <= 10_000 + 8 * overrun
    assert most_running <= 8


# --- time -----------------------------------------------------------------------------------------------------------------


def test_used_tokens_leave_the_minute_after_at_least_sixty_seconds() -> None:
    """The wait lasts until some of the limit is free, not all of it."""
    used = {MINUTE.slot(NOON): 600, MINUTE.slot(NOON + 30): 500}
    now = NOON + 40
    found = balance(MINUTE, 1000, used, 0, now)
    assert (found.remaining, found.wait, found.reset) == (0, 21.0, 51.0)
    assert balance(MINUTE, 1000, used, 0, NOON + 60.9).remaining == 0
    assert balance(MINUTE, 1000, used, 0, NOON + 61).remaining == 500
    assert balance(MINUTE, 1000, used, 500, NOON + 61).wait == 1.0
    assert balance(MINUTE, 1000, {}, 0, now).reset == 0.0


def test_a_day_ends_at_midnight_utc() -> None:
    """All of it is free then."""
    used = {DAY.slot(NOON): 1000}
    assert balance(DAY, 1000, used, 0, NOON).wait == 43200.0
    assert balance(DAY, 1000, used, 0, NOON + 43199.5).remaining == 0
    assert balance(DAY, 1000, used, 0, NOON + 43200).remaining == 1000


async def test_in_memory_tokens_are_available_again_after_a_minute() -> None:
    """The old slots are forgotten."""
    now = [NOON]
    budgets = MemoryBudgets(lambda: now[0])
    limits = KeyLimits(tokens_per_minute=100)
    await budgets.settle("a", limits, await budgets.reserve("a", limits, 10), 100)
    assert (await budgets.reserve("a", limits, 10)).refused == "tokens_per_minute"
    now[0] += 61
    assert (await budgets.reserve("a", limits, 10)).refused == ""


async def test_in_memory_a_clock_that_jumps_neither_frees_nor_blocks_a_budget() -> None:
    """The store decides what counts of each day; slots ahead of the clock do not count."""
    now = [NOON]
    budgets = MemoryBudgets(lambda: now[0])
    day, minute = KeyLimits(tokens_per_day=100), KeyLimits(tokens_per_minute=100)
    for account, limits in (("a", day), ("b", minute)):
        await budgets.settle(account, limits, await budgets.reserve(account, limits, 100), 100)
    now[0] += 86400
    assert (await budgets.reserve("a", day, 0, spent=0)).refused == ""
    now[0] -= 86400
    assert (await budgets.reserve("a", day, 0, spent=100)).refused == "tokens_per_day"
    now[0] -= 3600
    assert (await budgets.reserve("b", minute, 0)).refused == ""


# --- Redis ----------------------------------------------------------------------------------------------------------------


async def test_in_redis_old_slots_and_reservations_of_killed_workers_end(redis_address: str) -> None:
    """A reservation has a lease; a slot has an end."""
    from redis.asyncio import Redis

    limiter = Limiter.open(redis_address)
    redis = Redis.from_url(redis_address)
    key = a_key(tokens_per_minute=100, parallel=1)
    root = f"lmdeck:{{{key.name}}}"
    now = int(time.time())
    await redis.hset(f"{root}:tokens_per_minute", mapping={str(now - 70): 100})
    await redis.zadd(f"{root}:running", {"killed-1:5000": now - 1})
    admitted = await limiter.admit(key, 10)
    assert await redis.hkeys(f"{root}:tokens_per_minute") == []
    assert await redis.zcard(f"{root}:running") == 1
    assert 0 < await redis.ttl(f"{root}:running") <= 120
    await limiter.settle(admitted, 7)
    assert await redis.hvals(f"{root}:tokens_per_minute") == [b"7"]
    assert 0 < await redis.ttl(f"{root}:tokens_per_minute") <= 62
    await redis.aclose()
    await limiter.aclose()


async def test_limits_continue_after_a_restart_of_redis(redis_address: str) -> None:
    """It has forgotten the scripts and the counts."""
    from redis.asyncio import Redis

    limiter = Limiter.open(redis_address)
    redis = Redis.from_url(redis_address)
    key = a_key(requests_per_minute=5, tokens_per_day=100)
    running = await limiter.admit(key, 10)
    await redis.script_flush()
    await redis.delete(*await redis.keys(f"*{key.name}*"))
    await limiter.settle(running, 30)
    again = await limiter.admit(key, 10)
    assert rate_limit_headers(again.balances)["x-ratelimit-remaining-tokens"] == "60"
    await limiter.settle(again, 1)
    await redis.aclose()
    await limiter.aclose()


async def test_the_lease_of_a_long_request_is_renewed(redis_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as running as long as it runs."""
    from redis.asyncio import Redis

    monkeypatch.setattr("lmdeck.gateway.limits.redis.LEASE_SECONDS", 6.0)
    limiter = Limiter.open(redis_address)
    redis = Redis.from_url(redis_address)
    key = a_key(parallel=1)
    admitted = await limiter.admit(key, 10)
    name = f"lmdeck:{{{key.name}}}:running"
    ((_, first),) = await redis.zrange(name, 0, -1, withscores=True)
    for _ in range(600):
        if (await redis.zrange(name, 0, -1, withscores=True))[0][1] > first:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the lease was not renewed")
    await limiter.settle(admitted, 1)
    assert await redis.zcard(name) == 0
    await redis.aclose()
    await limiter.aclose()


async def test_redis_that_does_not_answer_is_a_typed_error_without_its_password() -> None:
    """Nothing is let through uncounted."""
    limiter = Limiter.open("redis://:hush-hush@127.0.0.1:1/0")
    for key in (a_key(parallel=1), a_key(requests_per_minute=5)):
        with pytest.raises(ServerError, match=r"cannot be checked: redis://127\.0\.0\.1:1/0 does not answer") as caught:
            await limiter.admit(key, 1)
        assert caught.value.status == 503
        assert "hush" not in str(caught.value)
    await limiter.aclose()
    with pytest.raises(ConfigurationError, match="is not the address of a Redis server"):
        Limiter.open("http://127.0.0.1:6379")


WORKER = """
import asyncio, json, sys, time
from lmdeck.gateway.admission import AdmissionRefused
from lmdeck.gateway.limits.limiter import Limiter
from lmdeck._usage_store import Key, KeyLimits

async def ask(limiter, key, admitted):
    while True:
        try:
            one = await limiter.admit(key, 20)
        except AdmissionRefused as refusal:
            if refusal.error.retry_after > 1:
                return
            await asyncio.sleep(0.002)  # only running requests hold the budget
            continue
        admitted.append(time.time())
        await asyncio.sleep(0.001)
        await limiter.settle(one, 20)

async def main():
    limiter = Limiter.open(sys.argv[1])
    for limits in json.loads(sys.argv[3]):
        key = Key(name=sys.argv[2] + str(limits), digest="d", start="lmk_", limits=KeyLimits(**limits))
        admitted = []
        await asyncio.gather(*(ask(limiter, key, admitted) for _ in range(5)))
        print(json.dumps(admitted))
    await limiter.aclose()

asyncio.run(main())
"""


def in_four_workers(url: str, *limits: dict[str, int]) -> list[list[float]]:
    """Ask in four processes at once, until each is refused; return the times of all admissions, for each key."""
    command = [sys.executable, "-c", WORKER, url, uuid.uuid4().hex, json.dumps(limits)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    times = [[json.loads(line) for line in worker.communicate(timeout=250)[0].splitlines()] for worker in workers]
    return [sorted(chain.from_iterable(each)) for each in zip(*times, strict=True)]


def most_in_a_minute(times: list[float]) -> int:
    """Return the largest number of times within 60 seconds."""
    return max(bisect_left(times, first + 60) - n for n, first in enumerate(times))


def test_four_workers_on_one_redis_exceed_no_limit(redis_address: str) -> None:
    """Requests by no more than 1 %; tokens by at most the twenty requests that were running."""
    requests, tokens = in_four_workers(redis_address, {"requests_per_minute": 400}, {"tokens_per_day": 8000})
    assert 400 <= most_in_a_minute(requests) <= 404
    assert 8000 <= 20 * len(tokens) <= 8000 + 20 * 20
