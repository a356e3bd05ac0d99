"""A scripted LM Studio that answers as it is asked to, and a real web server before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback import DONE, HANG, SSE_HEAD, Loopback, Request, chunk, endless, event, events, http_chunks

HERE = Path(__file__).parent
TESTS = HERE.parents[1]


def call(name: str, arguments: str) -> list[Any]:
    """Give an answer that calls a tool."""
    function = {"name": name, "arguments": arguments}
    delta = {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}
    choices = [{"index": 0, "delta": delta}]
    first = event({"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": choices})
    return [SSE_HEAD, http_chunks(first, chunk(finish="tool_calls"), DONE)]


def answer(request: Request) -> Any:
    """Answer by the user's last word: `endless`, `silent`, `late`, `slow`, `cut`, `tool`, or anything else."""
    messages = request.json["messages"]
    if messages[-1]["role"] == "tool":
        return events(f"It says {messages[-1]['content']}")
    match messages[-1]["content"]:
        case "endless":
            return endless(request)
        case "silent":
            return [HANG]
        case "late":
            return [0.6, *events("late")]
        case "slow":
            return [
                SSE_HEAD,
                http_chunks(chunk("one "), last=False),
                0.3,
                http_chunks(chunk("two"), chunk(finish="stop"), DONE),
            ]
        case "cut":
            return [SSE_HEAD, http_chunks(chunk("half"))]
        case "markup":
            return events(
                "**bold** <img src=x onerror=alert(1)>\n\n```\nx < 1\n```\n", "[a](https://a.b) [b](javascript:1)"
            )
        case "tool":
            return call("get_weather", '{"city": "Paris"}')
        case _:
            return events("Hel", "lo.")


@dataclass
class Site:
    """A running server of the test project, and the LM Studio that it asks."""

    kind: str
    port: int
    lm_studio: Loopback
    ends_file: Path
    log: Path
    seen: int = field(default=0)

    @contextmanager
    def get(self, path: str, **headers: str) -> Iterator[Any]:
        """Ask for a page and give the socket's file, past the head, as the server sends it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=8) as sock:
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            sock.sendall("\r\n".join([*lines, "\r\n"]).encode())
            with sock.makefile("rb") as file:
                yield file

    def ends(self) -> list[str]:
        """How answers ended, since this was asked last."""
        lines = self.ends_file.read_text(encoding="utf-8").splitlines() if self.ends_file.exists() else []
        new, self.seen = lines[self.seen :], len(lines)
        return new


PREPARE = """
import django
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client()
client.force_login(get_user_model().objects.create_user("ann"))
print(client.session.session_key)
"""


def prepare(database: Path) -> str:
    """Make a database with a user that has logged in, and give the key of the session."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE],
        env={**_environment(), "TEST_DATABASE": str(database)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(TESTS)]),
        "DJANGO_SETTINGS_MODULE": "django_settings",
    }


def head_of(file: Any) -> dict[str, str]:
    """Read a response's head: its status under `status`, and the header fields in lower case."""
    head = {"status": file.readline().split()[1].decode()}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(":")
        head[name.lower()] = value.strip()
    return head


COMMANDS = {
    "uvicorn": ["uvicorn", "django_asgi:application", "--log-level", "warning", "--lifespan", "off", "--port"],
    "runserver": ["django", "runserver", "--noreload", "--skip-checks"],
    "gunicorn": ["gunicorn", "django_wsgi:application", "--log-level", "warning", "--threads", "4", "--bind"],
}


@contextmanager
def site(kind: str, folder: Path, **environment: str) -> Iterator[Site]:
    """Run a real server of the test project."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = str(port) if kind == "uvicorn" else f"127.0.0.1:{port}"
    ends, log = folder / "ends", folder / "log"
    with Loopback(answer) as lm_studio, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[kind], where],
            env={
                **_environment(),
                "TEST_LM_STUDIO": lm_studio.url,
                "TEST_ENDS": str(ends),
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_open(port, process, log)
            yield Site(kind, port, lm_studio, ends, log)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the server did not start: {log.read_text(encoding='utf-8')}")
