"""The examples run, each with one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.no_cover  # what an example calls, other tests measure
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path) -> None:
    """It ends well, says something and complains about nothing."""
    with FakeLMStudio(strict=False) as fake:
        asked = fake.when(lambda request: bool(request.tools) and not request.tool_uses)
        asked.tool_call("time_in" if example.stem == "tool_call" else "get_weather", city="Paris", offset_hours=2)
        done = subprocess.run(
            [sys.executable, str(example)],
            env={**os.environ, "LMDECK_BASE_URL": fake.base_url, "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 4,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.stderr
