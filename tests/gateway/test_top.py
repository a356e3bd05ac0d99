"""`lmdeck top` in a real terminal of 80 × 24: hosts, queues and requests, and what its keys do."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from bodies import chunk
from gateways import MODEL, PATIENCE, Answer, GatewayProcess, config_of, gateway
from lmdeck.testing import FakeLMStudio
from loopback import Loopback, json_answer
from terminals import Terminal

TOP = [sys.executable, "-m", "lmdeck", "top"]


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(seed=0) as server:
        yield server


class Screen(Terminal):
    """A terminal that is looked at until something is so."""

    def wait_until(self, condition: Callable[[str], bool]) -> str:
        limit = time.monotonic() + PATIENCE
        while not condition("\n".join(self.rows)):
            assert time.monotonic() < limit, "\n".join(self.rows)
            self.forget()
            with contextlib.suppress(AssertionError):
                self.wait_for("\0", 0.2)
        return "\n".join(self.rows)


@contextlib.contextmanager
def top(running: GatewayProcess) -> Iterator[Screen]:
    screen = Screen([*TOP, "--url", running.url, "--interval", "0.2"], dict(os.environ), columns=80, lines=24)
    with contextlib.closing(screen):
        yield screen


def test_top_shows_and_controls_requests_and_hosts(fake: FakeLMStudio, tmp_path: Path) -> None:
    """It shows two hosts, one of which goes down, and open requests; keys cancel, drain and quit."""
    fake.at("/v1/chat/completions").frames(chunk("one"), chunk("two"), 120.0)
    answers: list[Answer] = []
    with FakeLMStudio(seed=0) as other:
        text = config_of([fake, other], "[routing]\npoll = 0.2\nprobe = 0.2")
        with gateway(tmp_path, text) as running, top(running) as screen:
            screen.wait_until(lambda shown: "✓ up" in shown and "no open requests" in shown)
            other.close()
            shown = screen.wait_until(lambda shown: "✗ down" in shown)
            threads = [threading.Thread(target=lambda: answers.append(running.chat(stream=True))) for _ in range(2)]
            for thread in threads:
                thread.start()
            shown = screen.wait_until(lambda shown: shown.count("answering") == 2)
            assert "2 open, 0 waiting" in shown
            assert MODEL[:10] in shown
            assert len(shown.splitlines()) <= 24
            assert "q quit" in shown
            screen.type("\x1b[B")
            screen.type("c")
            screen.wait_until(lambda shown: "1 open" in shown and "stopped" in shown)
            screen.type("c")
            screen.wait_until(lambda shown: "0 open" in shown)
            screen.type("s")
            screen.type("d")
            screen.wait_until(lambda shown: "‖ draining" in shown and "a is draining" in shown)
            screen.type("d")
            screen.wait_until(lambda shown: "a is active again" in shown)
            for thread in threads:
                thread.join(PATIENCE)
            shown = screen.wait_until(lambda shown: "2 failed" in shown)
            assert "ServerError" in shown
            screen.type("q")
            assert screen.process.wait(PATIENCE) == 0
    assert [answer.events[-1]["error"]["code"] for answer in answers] == ["cancelled"] * 2


def test_top_survives_a_gateway_that_does_not_answer(fake: FakeLMStudio, tmp_path: Path) -> None:
    """What was known stays on the screen, and the reason beside it."""
    with gateway(tmp_path, config_of([fake])) as running, top(running) as screen:
        screen.wait_until(lambda shown: "✓ up" in shown)
        running.end()
        shown = screen.wait_until(lambda shown: "No gateway answers" in shown)
        assert "✓ up" in shown
        screen.type("q")
        assert screen.process.wait(PATIENCE) == 0


class _Operated(BaseHTTPRequestHandler):
    """A gateway whose state a test changes; it notes what it is asked to do."""

    protocol_version = "HTTP/1.1"
    hosts: ClassVar[list[str]] = []
    live: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        host = {
            "up": True,
            "draining": False,
            "breaker": "closed",
            "loading": "",
            "running": 0,
            "models": {},
            "error": "",
        }
        request = {
            "key": "",
            "model": "m",
            "host": "h",
            "phase": "answering",
            "seconds": 1.0,
            "chunks_per_second": None,
        }
        totals = {"requests": 0, "errors": 0, "problems": 0, "hits": 0}
        self._answer(
            {
                "hosts": [{**host, "name": name} for name in self.hosts],
                "live": [{**request, "request_id": id_} for id_ in self.live],
                "queues": {}, "errors": [], "totals": totals, "requests": len(self.live),
            }
        )  # fmt: skip

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(self.path)
        self._answer({})

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_key_presses_act_only_on_existing_requests_and_hosts() -> None:
    """A key acts neither on the next request nor on a removed host, and names may have spaces."""
    _Operated.hosts, _Operated.live, _Operated.asked = ["a b", "other"], ["req_one", "req_two"], []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Operated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        screen = Screen([*TOP, "--url", url, "--interval", "0.2"], dict(os.environ), columns=80, lines=24)
        with contextlib.closing(screen):
            screen.wait_until(lambda shown: "eq_two" in shown and "▸  other" not in shown)
            screen.type("\x1b[Bh")
            screen.wait_until(lambda shown: "▸  other" in shown)
            _Operated.hosts, _Operated.live = ["a b"], ["req_one"]
            screen.wait_until(lambda shown: "eq_two" not in shown and "other" not in shown)
            screen.type("c")
            screen.wait_until(lambda shown: "eq_two has ended" in shown)
            screen.type("d")
            screen.wait_until(lambda shown: "a b is draining" in shown)
            screen.type("c")
            screen.wait_until(lambda shown: "stopped eq_one" in shown)
            _Operated.hosts, _Operated.live = [], []
            screen.wait_until(lambda shown: "no open requests" in shown and "a b  " not in shown)
            screen.type("dcq")
            assert screen.process.wait(PATIENCE) == 0
        server.shutdown()
    assert _Operated.asked == ["/gateway/hosts/a%20b/drain", "/gateway/requests/req_one/cancel"]


def test_top_without_a_terminal_prints_the_state_once(fake: FakeLMStudio, tmp_path: Path) -> None:
    with gateway(tmp_path, config_of([fake])) as running:
        done = subprocess.run([*TOP, "--url", running.url, "--json"], capture_output=True, text=True, check=True)
        assert '"hosts"' in done.stdout
        done = subprocess.run([*TOP, "--url", running.url], capture_output=True, text=True, check=True)
        assert "✓ up" in done.stdout
    done = subprocess.run([*TOP, "--url", running.url], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No gateway answers" in done.stderr


def test_top_refuses_what_answers_in_another_form() -> None:
    """Another program at the address, or a gateway of another version, ends it with a sentence."""
    for status in ({"hosts": [{"name": "a"}]}, {"hosts": 5}, {}):
        with Loopback(lambda request, status=status: json_answer(status)) as server:
            done = subprocess.run([*TOP, "--url", server.url], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "is not an lmdeck gateway" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
