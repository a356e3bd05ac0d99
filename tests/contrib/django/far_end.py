"""A scripted LM Studio that answers as it is asked to, and a real web server before it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmdeck.contrib.django.testing import override_lmdeck
from lmdeck.testing import Answer, FakeLMStudio, SentRequest
from lmdeck.testing.fake_models import DEFAULT_EMBEDDING_MODEL, DEFAULT_MODEL
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE
from ports import free_port, wait_until_open

HERE = Path(__file__).parent
TESTS = HERE.parents[1]


SLOW = "one two three four five six"
HALF = "half an answer, and then nothing more"
CALL = Answer(
    calls=(PlannedCall(name="get_weather", arguments='{"city": "Paris"}'),), prompt_tokens=10, completion_tokens=4
)


ANSWERS = {
    "endless": Answer(content="la " * 20_000, tokens_per_second=60),
    "silent": Answer(content="never", time_to_first_token=60),
    "late": Answer(content="late", time_to_first_token=0.6),
    "slow": Answer(content=SLOW, tokens_per_second=60),
    "think": Answer(content="It is blue.", reasoning="Light is scattered."),
    "cut": Answer(content=HALF, fault="cut", fault_options={"after_chunks": 4}),
    "tool": CALL,
    "users": Answer(calls=(PlannedCall(name="count_users", arguments={}),)),
    "users later": Answer(calls=(PlannedCall(name="count_users_later", arguments={}),)),
}


def answer(request: SentRequest) -> Answer:
    """Answer by the user's last words, as `ANSWERS` has them, or anything else."""
    if request.messages[-1]["role"] == "tool":
        return Answer(content=f"It says {request.messages[-1]['content']}", prompt_tokens=20, completion_tokens=8)
    return ANSWERS.get(request.last_user, Answer(content="Hello."))


@contextmanager
def far_end() -> Iterator[FakeLMStudio]:
    """A fake LM Studio with the models `m` and `other`; what is not scripted otherwise is answered by the user's last word."""
    with FakeLMStudio(cuts=False) as fake:
        for default in (DEFAULT_MODEL, DEFAULT_EMBEDDING_MODEL):
            fake.remove_model(default)
        fake.add_model("m")
        fake.add_model("other")
        fake.respond(answer).repeat()
        yield fake


@contextmanager
def project() -> Iterator[FakeLMStudio]:
    """The same, as the LM Studio of the project."""
    with far_end() as fake, override_lmdeck(BASE_URL=fake.base_url):
        yield fake


@dataclass
class Site:
    """A running server of the test project, and the LM Studio that it asks."""

    kind: str
    port: int
    lm_studio: FakeLMStudio
    ends_file: Path
    log: Path
    seen: int = field(default=0)

    @contextmanager
    def get(self, path: str, **headers: str) -> Iterator[Any]:
        """Ask for a page and give the socket's file, past the head, as the server sends it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
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
import os
import django
django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
client = Client()
client.force_login(get_user_model().objects.create_user(os.environ.get("TEST_USER", "ann")))
print(client.session.session_key)
"""


def prepare(database: Path, **environment: str) -> str:
    """Make a database with a user that has logged in, and give the key of the session."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE],
        env={**_environment(), "TEST_DATABASE": str(database), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
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
    "gevent": ["gunicorn", "django_wsgi:application", "--log-level", "warning", "--worker-class", "gevent", "--bind"],
    "gunicorn": ["gunicorn", "django_wsgi:application", "--log-level", "warning", "--threads", "4", "--bind"],
}


@contextmanager
def site(kind: str, folder: Path, **environment: str) -> Iterator[Site]:
    """Run a real server of the test project."""
    port = free_port()
    where = str(port) if kind == "uvicorn" else f"127.0.0.1:{port}"
    ends, log = folder / "ends", folder / "log"
    with far_end() as lm_studio, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[kind], where],
            env={
                **_environment(),
                "TEST_LM_STUDIO": lm_studio.base_url,
                "TEST_ENDS": str(ends),
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_open(port, process, log)
            yield Site(kind, port, lm_studio, ends, log)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
