"""The demo, with the real model."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from cli_tools import COMMAND

from loopback import PATIENCE


@pytest.mark.engine
@pytest.mark.usefixtures("weights")
def test_demo() -> None:
    """It streams an answer, has a tool called and run for real, says how to go on, and ends by itself."""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [*COMMAND, "demo"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 9,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"smollm2-135m-instruct · \d+ tokens · [\d.]+ tokens/s", done.stdout)
    shown = " ".join(done.stdout.replace("│", " ").split())
    assert "tool_calls: None" in shown  # openai-python sees no call
    assert "no error; this looks" in shown  # openai-python notices no interruption
    assert "IncompleteStreamError" in shown
    assert "problems: repaired" in shown
    assert "queue" not in done.stderr
    assert re.search(r'calls +time_at_offset\(\{"offset_hours": ?-?\d+\}\)', done.stdout)
    assert re.search(r"the tool returns +\d\d:\d\d", done.stdout)
    assert "lmdeck doctor" in done.stdout
