"""What importing costs: little memory, little time, and nothing is opened or read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WATCH = """
import json, os, sys
sys.dont_write_bytecode = True
seen = []

def note(event, arguments):
    if event == "open" and not str(arguments[0]).endswith((".py", ".pyc")):
        seen.append(f"open {arguments[0]}")
    elif event.split(".")[0] in {"socket", "subprocess", "ssl", "urllib", "http", "sqlite3"} or event in {
        "os.system", "os.fork", "os.exec", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "os.putenv",
        "_thread.start_new_thread",
    }:
        seen.append(f"{event} {arguments}")

class Watched(type(os.environ)):
    def __getitem__(self, key):
        seen.append(f"environment {key}")
        return super().__getitem__(key)

    def __iter__(self):
        seen.append("environment, all of it")
        return super().__iter__()

os.environ.__class__ = Watched
sys.addaudithook(note)
BODY
print(json.dumps({"seen": seen, "modules": sorted(sys.modules)}))
"""
EVERY_NAME = 'import lmdeck\nfor name in lmdeck.__all__:\n    if name != "models":\n        getattr(lmdeck, name)'


def python(code: str, folder: Path) -> str:
    """Run code in an interpreter of its own, which nobody measures, and give what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def watched(body: str, folder: Path) -> dict[str, Any]:
    """Run code under an audit hook; give what it opened or read, and what it imported."""
    return json.loads(python(WATCH.replace("BODY", body), folder))


@pytest.mark.parametrize("body", ["import lmdeck", EVERY_NAME], ids=["import", "every name"])
def test_importing_opens_and_reads_nothing(body: str, tmp_path: Path) -> None:
    """No socket, no file, no environment, no thread; and the HTTP libraries come with the first request."""
    (tmp_path / "lmdeck.toml").write_text("port = 'not read'")
    found = watched(body, tmp_path)
    assert found["seen"] == []
    assert not {"urllib3", "aiohttp", "asyncio", "ssl", "http.client", "tomllib", "typer", "rich", "starlette"} & set(
        found["modules"]
    )
    assert "lmdeck" in found["modules"]
    assert ("lmdeck._client.clients" in found["modules"]) == (body == EVERY_NAME)


def test_the_watch_sees(tmp_path: Path) -> None:
    """A hook that notices nothing would prove nothing."""
    (tmp_path / "lmdeck.toml").write_text("port = 5")
    seen = watched("import lmdeck, socket\nlmdeck.default_client()\nsocket.socket().close()", tmp_path)["seen"]
    assert any(line.startswith("environment LMDECK_HOST") for line in seen)
    assert any("lmdeck.toml" in line for line in seen)
    assert any(line.startswith("socket") for line in seen)


def test_a_client_costs_no_http_library_before_its_first_request(tmp_path: Path) -> None:
    """Making one, and building a chat with it, is only words."""
    modules = watched("import lmdeck\nlmdeck.LMStudio().chat('m').user('Hi').with_options(seed=1)", tmp_path)["modules"]
    assert not {"urllib3", "aiohttp", "asyncio", "ssl"} & set(modules)


MEMORY = 'BODY\nprint(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))'


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system does not tell a process's memory this way"
)
@pytest.mark.parametrize("body", ["import lmdeck", EVERY_NAME], ids=["import", "every name"])
def test_importing_costs_little_memory(body: str, tmp_path: Path) -> None:
    """At most 8 MB over a bare interpreter; all the public names together at most twice that."""

    def kilobytes(code: str) -> int:
        return min(int(python(MEMORY.replace("BODY", code), tmp_path)) for _ in range(3))

    assert kilobytes(body) - kilobytes("pass") <= (8 if body == "import lmdeck" else 16) * 1024


def test_importing_costs_little_time(tmp_path: Path) -> None:
    """Time follows the modules that are loaded, and those can be counted: a few of the standard library, fewer of ours."""
    modules = set(watched("import lmdeck", tmp_path)["modules"]) - set(watched("", tmp_path)["modules"])
    assert len(modules) <= 20, sorted(modules)
