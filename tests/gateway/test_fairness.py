"""Fair turns by key, and models that are loaded once in seeded races."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from gateways import MODEL, GatewayProcess, config_of, gateway
from lmdeck.gateway.fair_queue import QUANTUM, FairQueue
from lmdeck.testing import FakeLMStudio, SentRequest

RACES = int(os.environ.get("LMDECK_RACES", "12"))  # 1000 by `make races`


class Entry:
    def __init__(self, key: str, cost: int) -> None:
        self.key = key
        self.cost = cost
        self.is_background = False


def served(entries: list[Entry]) -> list[Entry]:
    queue: FairQueue[Entry] = FairQueue()
    for entry in entries:
        queue.push(entry)
    order = []
    while len(queue):
        order.append(queue.heads()[0])
        queue.take(order[-1])
    return order


def test_keys_take_turns() -> None:
    order = served([Entry("flood", 100) for _ in range(50)] + [Entry("calm", 100) for _ in range(5)])
    calm = [n for n, entry in enumerate(order) if entry.key == "calm"]
    assert calm[-1] <= 2 * QUANTUM // 100 + 5  # of 55
    assert len(order) == 55


def test_turns_are_fair_by_tokens_not_by_requests() -> None:
    """Within any stretch, the tokens of two keys differ by at most a quantum and a request."""
    rng = random.Random(7)
    entries = [
        Entry(key, rng.choice(costs))
        for key, costs in (("long", [3000, 9000]), ("short", [50, 400]))
        for _ in range(300)
    ]
    order = served(entries)
    tokens: Counter[str] = Counter()
    remaining = Counter(entry.key for entry in entries)
    for entry in order:
        tokens[entry.key] += entry.cost
        remaining[entry.key] -= 1
        if min(remaining.values()) == 0:
            break
        assert abs(tokens["long"] - tokens["short"]) <= 2 * QUANTUM + 9000


def test_a_removed_entry_leaves_its_queue() -> None:
    queue: FairQueue[Entry] = FairQueue()
    entries = [Entry("a", 1), Entry("a", 1), Entry("b", 1)]
    for entry in entries:
        queue.push(entry)
    assert [queue.position(entry) for entry in entries] == [0, 2, 1]
    assert queue.remove(entries[0])
    assert not queue.remove(entries[0])
    assert [len(queue), queue.position(entries[1])] == [2, 0]


async def ask(
    session: aiohttp.ClientSession, running: GatewayProcess, text: str, key: str = "", *, wait: float = 0.0
) -> tuple[int, float]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    await asyncio.sleep(wait)
    began = time.monotonic()
    async with session.post(f"{running.url}/v1/chat/completions", json=body, headers=headers) as answer:
        await answer.read()
        return answer.status, time.monotonic() - began


async def test_a_model_is_loaded_once_in_every_race(tmp_path: Path) -> None:
    """However requests arrive while a model is not loaded, one of them goes first: LM Studio loads once per request.

    It may have been unloaded in the moment in which the last answer had ended.
    """
    rng = random.Random(17)
    with FakeLMStudio(strict=False) as one, FakeLMStudio(strict=False) as other:
        early: Counter[str] = Counter()
        for fake in (one, other):
            fake.on_request(partial(note_early, early, fake))
        with gateway(tmp_path, config_of([one, other], "[routing]\npoll = 60\n")) as running:
            async with aiohttp.ClientSession() as session:
                for race in range(RACES):
                    early.clear()
                    for fake in (one, other):
                        fake.evict()
                        fake.model(MODEL).load_seconds = rng.choice([0.0, 0.02, 0.1])
                    waits = [rng.random() * rng.choice([0.0, 0.001, 0.03]) for _ in range(8)]
                    answers = await asyncio.gather(
                        *(ask(session, running, str(n), wait=wait) for n, wait in enumerate(waits))
                    )
                    assert [status for status, _ in answers] == [200] * 8, race
                    assert max(early.values(), default=0) <= 1, (race, early)


def note_early(early: Counter[str], fake: FakeLMStudio, request: SentRequest) -> None:
    """Count the requests that reach a host before the model of the first one is loaded."""
    if request.path == "/v1/chat/completions" and not fake.model(MODEL).instances:
        early[fake.base_url] += 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_key_that_floods_does_not_delay_another_one(tmp_path: Path, workers: int) -> None:
    """Its requests wait for at most about two answers, however many the other key has in the queue, and wherever they are."""
    service = 0.1
    with FakeLMStudio(strict=False, time_to_first_token=service) as fake:
        text = config_of([fake], f"[auth]\nrequired = true\n[store]\nurl = 'sqlite:///{tmp_path}/gateway.db'\n")
        keys = {name: new_key(tmp_path, text, name) for name in ("flood", "calm")}
        text = text.replace('name = "a"', 'name = "a"\nparallel = 1')
        with gateway(tmp_path, text, "--workers", str(workers)) as running:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                flood = [asyncio.create_task(ask(session, running, "flood", keys["flood"])) for _ in range(80)]
                while not any(request.body for request in fake.requests):  # noqa: ASYNC110  # the fake runs in another thread
                    await asyncio.sleep(0.01)
                calm, behind = [], []
                for n in range(8):
                    before = len(chats(fake))
                    calm.append((await ask(session, running, f"calm {n}", keys["calm"]))[0])
                    own = next(k for k, request in enumerate(chats(fake)) if request.last_user == f"calm {n}")
                    behind.append(own - before)
                assert calm == [200] * 8
                assert max(behind) <= 2, behind  # requests of the flood that went first
                assert not all(task.done() for task in flood)
                for task in flood:
                    task.cancel()
                await asyncio.gather(*flood, return_exceptions=True)


def chats(fake: FakeLMStudio) -> list[SentRequest]:
    return [request for request in fake.requests if request.path == "/v1/chat/completions"]


def new_key(folder: Path, text: str, name: str) -> str:
    config = folder / "keys.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "lmdeck", "gateway", "keys", "create", name, "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return str(json.loads(done.stdout)["key"])
