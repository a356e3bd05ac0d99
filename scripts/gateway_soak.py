"""A soak test of the gateway: many keys, faulty hosts that restart, and a gateway that is killed at random moments.

    python scripts/gateway_soak.py --minutes 30

It checks that every request ends with the right answer, a typed error, or a broken connection where the gateway was killed, and
that the usage of every answer that a client has received completely is stored. It prints the gateway's memory, and ends with
status 1 if something was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from lmdeck._usage_store import open_store
from lmdeck.gateway.keys import new_key
from lmdeck.testing import FakeLMStudio

MODEL = "qwen2.5-7b-instruct"
FILLER = "one two three four five six"
FAULTS = [
    "reset_at_once",
    "close_at_once",
    "server_error",
    "overloaded",
    "crash",
    "cut",
    "early_end",
    "rate_limit",
    "half_head",
]
STREAM_SHARE, LEAVE_SHARE, FAULT_SHARE = 0.5, 0.05, 0.1
START_SECONDS = 300.0
PAUSE_SECONDS = 0.2


@dataclass
class Tally:
    """What the clients received: outcomes, ids of complete answers, and errors; and measurements of the gateway."""

    outcomes: Counter[str] = field(default_factory=Counter)
    complete: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Soak:
    """One soak test: its hosts, its gateway and its clients."""

    def __init__(self, folder: Path, *, seed: int, keys: int, clients: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.store = f"sqlite:///{folder}/gateway.db"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.hosts = [FakeLMStudio(strict=False, port=free_port(), tokens_per_second=200) for _ in range(2)]
        self.config = folder / "gateway.toml"
        self.clients = clients
        self.tally = Tally()
        self.until = 0.0
        self.gateway: subprocess.Popen[bytes] | None = None
        self._key_count = keys
        self.keys: list[str] = []

    async def run(self, seconds: float, kills: int) -> Tally:
        """Run for a number of seconds, and kill the gateway `kills` times."""
        for host in self.hosts:
            host.start()
        self._write_config()
        self.keys = self._create_keys(self._key_count)
        await self._start_gateway()
        self.until = time.monotonic() + seconds
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
                working = [asyncio.create_task(self._client(session)) for _ in range(self.clients)]
                others = [asyncio.create_task(self._restart_hosts()), asyncio.create_task(self._watch_memory())]
                if kills:
                    others.append(asyncio.create_task(self._kill(seconds / (kills + 1))))
                await asyncio.gather(*working)
                for other in others:
                    other.cancel()
                for ended in await asyncio.gather(*others, return_exceptions=True):
                    if isinstance(ended, Exception):  # not its cancellation: the test is not valid without it
                        raise ended
        finally:
            self._end()
        self._check_usage()
        return self.tally

    # --- the gateway and its hosts ---

    def _write_config(self) -> None:
        hosts = "".join(f'[[hosts]]\nname = "h{n}"\nurl = "{host.base_url}"\n' for n, host in enumerate(self.hosts))
        rest = f"[routing]\npoll = 0.5\nprobe = 0.2\nattempts = 4\n[auth]\nrequired = true\n[store]\nurl = '{self.store}'\n"
        self.config.write_text(hosts + rest)

    def _create_keys(self, count: int) -> list[str]:
        made = [new_key(f"key{number}") for number in range(count)]
        with contextlib.closing(open_store(self.store)) as store:
            for _, key in made:
                store.add_key(key)
        return [secret for secret, _ in made]

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "lmdeck",
            "gateway",
            "serve",
            "--config",
            str(self.config),
            "--port",
            str(self.port),
        ]
        with (self.folder / "gateway.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    async def _start_gateway(self) -> None:
        began = time.monotonic()
        self.gateway = await asyncio.to_thread(self._launch)
        async with aiohttp.ClientSession() as session:
            while time.monotonic() - began < START_SECONDS:
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    async with session.get(f"{self.url}/health"):
                        self.tally.start_seconds.append(time.monotonic() - began)
                        return
                await asyncio.sleep(0.02)
        raise RuntimeError((self.folder / "gateway.log").read_text()[-2000:])

    async def _kill(self, every: float) -> None:
        while True:
            await asyncio.sleep(every * self.rng.uniform(0.5, 1.0))
            assert self.gateway is not None
            self.gateway.kill()
            self.gateway.wait()
            await self._start_gateway()

    async def _restart_hosts(self) -> None:
        while True:
            await asyncio.sleep(self.rng.uniform(1.0, 4.0))
            host = self.rng.choice(self.hosts)
            await asyncio.to_thread(host.close)
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))
            await asyncio.to_thread(host.start)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            file = Path(f"/proc/{self.gateway.pid}/status") if self.gateway is not None else Path()
            with contextlib.suppress(OSError, StopIteration):
                line = next(line for line in file.read_text().splitlines() if line.startswith("VmRSS"))
                self.tally.memory.append(int(line.split()[1]) / 1024)

    def _end(self) -> None:
        if self.gateway is not None:
            self.gateway.terminate()
            self.gateway.wait()
        for host in self.hosts:
            host.close()

    # --- the clients ---

    async def _client(self, session: aiohttp.ClientSession) -> None:
        number = 0
        while time.monotonic() < self.until:
            number += 1
            text = f"{id(asyncio.current_task())}-{number} " + "word " * self.rng.randrange(30)
            if self.rng.random() < FAULT_SHARE:
                self.rng.choice(self.hosts).fail(self.rng.choice(FAULTS), reply=FILLER)
            try:
                outcome = await self._ask(session, text)
            except (aiohttp.ClientError, OSError) as error:
                outcome = "connection"  # the gateway was killed, or the client left
                await asyncio.sleep(PAUSE_SECONDS)
                if isinstance(error, aiohttp.InvalidURL):
                    raise
            self.tally.outcomes[outcome] += 1

    async def _ask(self, session: aiohttp.ClientSession, text: str) -> str:
        streams = self.rng.random() < STREAM_SHARE
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": streams}
        headers = {"Authorization": f"Bearer {self.rng.choice(self.keys)}"}
        async with session.post(f"{self.url}/v1/chat/completions", json=body, headers=headers) as answer:
            if streams and self.rng.random() < LEAVE_SHARE:
                await answer.content.readany()
                return "left"
            data = await answer.read()
            if answer.status != 200:
                error = json.loads(data)
                self._check_error(error)
                await asyncio.sleep(PAUSE_SECONDS)
                return f"{answer.status} {error['error'].get('code')}"
            content, has_ended, error = _read(data, streams=streams)
            if error is not None:
                self._check_error(error)
                return "error event"
            if not has_ended:
                self.tally.wrong.append(f"an answer stopped before its end: {data[-200:]!r}")
            elif content not in (f"You said: {text}", FILLER):
                self.tally.wrong.append(f"{content!r} instead of {text!r}")
            else:
                self.tally.complete.add(answer.headers["x-request-id"])
            return "right"

    def _check_error(self, body: dict[str, dict[str, str]]) -> None:
        if not (body.get("error", {}).get("message") and body["error"].get("code")):
            self.tally.wrong.append(f"an error without message or code: {body}")

    # --- afterwards ---

    def _check_usage(self) -> None:
        with contextlib.closing(open_store(self.store)) as store:
            stored = {record.id for record in store.requests(since=0.0, limit=10_000_000)}
        lost = self.tally.complete - stored
        if lost:
            self.tally.wrong.append(f"the usage of {len(lost)} finished requests was lost, such as {min(lost)}")


def _read(data: bytes, *, streams: bool) -> tuple[str, bool, dict[str, dict[str, str]] | None]:
    """Return the text of an answer, whether it has its end, and the error that ended it."""
    if not streams:
        return str(json.loads(data)["choices"][0]["message"]["content"]), True, None
    content, has_finished = "", False
    for line in data.decode().splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            return content, False, event
        for choice in event["choices"]:
            content += choice["delta"].get("content") or ""
            has_finished = has_finished or choice.get("finish_reason") is not None
    return content, has_finished and data.rstrip().endswith(b"data: [DONE]"), None


def main() -> int:
    """Run a soak test with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=20, help="how often the gateway is killed")
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), seed=options.seed, keys=options.keys, clients=options.clients)
        tally = asyncio.run(soak.run(options.minutes * 60, options.kills))
    sys.stdout.write(
        f"{dict(tally.outcomes)}\n{len(tally.complete)} complete answers, all stored: {not tally.wrong}\n"
        f"memory (MB), sampled: {', '.join(f'{each:.0f}' for each in tally.memory[:: max(1, len(tally.memory) // 20)])}\n"
        f"start-up (s): {', '.join(f'{each:.1f}' for each in tally.start_seconds)}\n"
        + "".join(f"WRONG: {each}\n" for each in tally.wrong[:20])
    )
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
