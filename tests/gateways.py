"""Gateways for the tests: a process of its own in front of fakes, and small clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from lmdeck.testing import FakeLMStudio

MODEL = "qwen2.5-7b-instruct"
PATIENCE = 60.0
JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of each event of a stream, without `[DONE]`."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    @property
    def text(self) -> str:
        """The text of a streamed chat."""
        deltas = [choice.get("delta", {}) for event in self.events for choice in event.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)


@dataclass
class GatewayProcess:
    """A running `lmdeck gateway serve`."""

    process: subprocess.Popen[str]
    url: str
    config: Path
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=300, retries=False))

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = self.pool.request(
            method, f"{self.url}{path}", body=data, headers={**JSON, **headers}, timeout=PATIENCE
        )
        return Answer(answer.status, answer.headers, answer.data)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def chat(
        self, text: str = "Hi", model: str = MODEL, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.request("POST", "/v1/chat/completions", body, **(headers or {}))

    def status(self) -> Any:
        return self.get("/gateway/status").json

    def host(self, name: str) -> Any:
        return next(host for host in self.status()["hosts"] if host["name"] == name)

    def wait_until(self, condition: Any, what: str = "") -> None:
        """Wait until a function of the status is true."""
        limit = time.monotonic() + PATIENCE
        while not condition(self.status()):
            assert time.monotonic() < limit, what or self.status()
            time.sleep(0.02)

    def reload(self, text: str) -> None:
        self.config.write_text(text)
        self.process.send_signal(signal.SIGHUP)

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=PATIENCE)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)


def config_of(hosts: Mapping[str, str] | Sequence[FakeLMStudio], more: str = "") -> str:
    """Return a configuration for hosts by name, or for fakes that are named a, b, c …"""
    named = hosts if isinstance(hosts, Mapping) else {chr(97 + n): fake.base_url for n, fake in enumerate(hosts)}
    tables = [f'[[hosts]]\nname = "{name}"\nurl = "{url}"' for name, url in named.items()]
    return "\n".join([*tables, more, ""])


@contextmanager
def gateway(
    folder: Path, text: str, *arguments: str, env: Mapping[str, str] | None = None, is_measured: bool = False
) -> Iterator[GatewayProcess]:
    """Run a gateway with a configuration, on a free port.

    One that is measured by coverage ends by Ctrl-C, so that it writes its figures; the others are killed, and not slowed down.
    """
    given = {name: value for name, value in os.environ.items() if is_measured or name != "COVERAGE_PROCESS_CONFIG"}
    config = folder / "gateway.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "lmdeck", "gateway", "serve", "--config", str(config), "--port", "0", *arguments]
    with (folder / "gateway.log").open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**given, **(env or {})}, cwd=folder
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (folder / "gateway.log").read_text()
    running = GatewayProcess(process, line.split()[3], config)
    try:
        yield running
    finally:
        running.pool.clear()
        if is_measured:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        process.kill()
        process.wait()
        process.stdout.close()
