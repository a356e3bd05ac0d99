"""The command under test, and the served model that it talks to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import COMMAND, Run, Speaker

from command_line import run_here
from lmdeck.server.app import create_app
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.server.tool_use import DefaultToolUse
from loopback import PATIENCE


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
def server(speaker: Speaker) -> Iterator[str]:
    with BackgroundServer(create_app(DefaultToolUse(speaker)), listen()) as running:
        yield running.base_url


@pytest.fixture
def environment(server: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LMDECK_")}
    return {
        **kept,
        "LMDECK_BASE_URL": server,
        "LMDECK_CHATS_DIR": str(tmp_path / "chats"),
        "PYTHONWARNINGS": "error",
        "COLUMNS": "100",
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run `lmdeck ARGUMENTS` in this process, with `stdin` as what is piped in."""

    def run(*arguments: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, environment={**environment, **more}, stdin=stdin)

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Run:
    """Run `lmdeck ARGUMENTS` as a program: for what a process alone has, such as the encoding of its streams."""

    def start(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding=more.get("PYTHONIOENCODING", "utf-8"),
            timeout=PATIENCE * 4,
            check=False,
        )

    return start
