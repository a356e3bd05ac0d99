"""`examples/fastapi_chat` and `examples/flask_chat` run with one command, and answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE
from ports import free_port

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("name", ["fastapi_chat", "flask_chat"])
def test_an_example_answers(name: str, tmp_path: Path, unused_port: int) -> None:
    command = [sys.executable, str(EXAMPLES / name), "--port", str(unused_port), "--history", str(tmp_path / "history")]
    url = f"http://127.0.0.1:{unused_port}"
    with FakeLMStudio(strict=False) as fake, subprocess.Popen(
        command,
        env={**os.environ, "LMDECK_BASE_URL": fake.base_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            _wait(f"{url}/", process)
            question = urllib.request.Request(
                f"{url}/ask", b'{"text": "Say hello."}', {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(question, timeout=PATIENCE * 4) as answer:
                told = answer.read().decode()
            assert '"type":"done"' in told
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 4 * PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE):
                return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def unused_port() -> int:
    return free_port()
