"""`examples/django_chat` runs with one command, and its page answers."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_end import far_end

from loopback import PATIENCE
from ports import free_port

EXAMPLE = Path(__file__).parents[3] / "examples" / "django_chat"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "LMDECK"))}
    with far_end() as lm_studio:
        environment = {
            **kept,
            "LMDECK_BASE_URL": lm_studio.base_url,
            "LMDECK_MODEL": "m",
            "CHAT_DATABASE": str(tmp_path / "chat.sqlite3"),
        }
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE), "--port", str(port)],
            env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert str(port) in said, said + process.stdout.read()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def opened(browser: urllib.request.OpenerDirector, address: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return str(browser.open(address, timeout=PATIENCE).read().decode())
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_it_runs_and_answers(address: str) -> None:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    page = opened(browser, f"{address}/")
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    form = {"username": "demo", "password": "demo", "csrfmiddlewaretoken": token[1], "next": "/"}
    page = browser.open(f"{address}/admin/login/?next=/", urllib.parse.urlencode(form).encode()).read().decode()
    fresh = re.search(r'data-token="(\w+)"', page)
    assert fresh is not None
    assert browser.open(f"{address}/static/lmdeck/chat.js").status == 200
    headers = {"Content-Type": "application/json", "X-CSRFToken": fresh[1], "Referer": address}
    question = urllib.request.Request(f"{address}/ask/", json.dumps({"text": "Hi"}).encode(), headers)
    with browser.open(question, timeout=PATIENCE) as response:
        told = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
    assert "".join(one["text"] for one in told if one["type"] == "content") == "Hello."
    listed = json.loads(browser.open(f"{address}/conversations/").read())["conversations"]
    assert [one["title"] for one in listed] == ["Hi"]


def test_its_settings_are_right() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "manage.py"), "check"], capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "LMDECK"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout
