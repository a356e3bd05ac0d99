"""The FastAPI and Flask examples as sites, before a scripted LM Studio."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.isolation import environment_for
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE
from ports import free_port, wait_until_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing import SentRequest

EXAMPLES = Path(__file__).parents[3] / "examples"
KINDS = ("fastapi", "flask")


def answer(request: SentRequest) -> Answer:
    """Answer by the user's last word."""
    word = request.last_user.split()[-1]
    if word == "tool" and not request.tool_uses:
        return Answer(calls=(PlannedCall(name="current_time", arguments={"utc_offset": 1}),), tokens_per_second=20)
    if word == "wrong" and not request.tool_uses:
        return Answer(calls=(PlannedCall(name="nobody_has_it"),))
    if word == "endless":
        return Answer(content="la " * 20_000, tokens_per_second=40)
    if word == "cut":
        return Answer(content="half an answer, and then nothing more", fault="cut", fault_options={"after_chunks": 4})
    return Answer(content=f"You said {word}.", reasoning="It says so.")


@contextmanager
def far_end() -> Iterator[FakeLMStudio]:
    """A fake LM Studio that answers by the user's last word."""
    with FakeLMStudio(seed=1, cuts=False) as fake:
        fake.when(lambda _: True).respond(answer)
        yield fake


@contextmanager
def site(kind: str, history: Path, fake: FakeLMStudio) -> Iterator[str]:
    """Serve an example: FastAPI's on uvicorn, Flask's on gunicorn with threads."""
    environment = environment_for(fake.base_url)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        if kind == "fastapi":
            app = runpy.run_path(str(EXAMPLES / "fastapi_chat" / "__main__.py"))["make_app"](history)
            with _uvicorn(app) as url:
                yield url
        else:
            with _gunicorn(history) as url:
                yield url
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _uvicorn(app: Any) -> Iterator[str]:
    with BackgroundServer(app, listen(), lifespan=True) as server:
        yield server.base_url


@contextmanager
def _gunicorn(history: Path) -> Iterator[str]:
    port = free_port()
    (history.parent / "site_under_test.py").write_text(
        f"import runpy\napp = runpy.run_path({str(EXAMPLES / 'flask_chat' / '__main__.py')!r})['make_app']({str(history)!r})\n"
    )
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        "--threads",
        "8",
        "--worker-class",
        "gthread",
    ]
    log = history.parent / "log"
    with log.open("wb") as output, subprocess.Popen(
        [*command, "site_under_test:app"], cwd=history.parent, stderr=output
    ) as process:  # fmt: skip
        try:
            wait_until_open(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE)
