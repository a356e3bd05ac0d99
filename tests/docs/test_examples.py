"""The examples run, each with one command, against a real model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loopback import PATIENCE

if TYPE_CHECKING:
    from lmdeck.engine import EngineServer

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.engine
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, engine: EngineServer) -> None:
    """It ends well, says something and complains about nothing."""
    environment = {**os.environ, "LMDECK_BASE_URL": engine.base_url, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, str(example)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    complaints = [line for line in done.stderr.splitlines() if "has waited in this client's queue" not in line]
    assert not complaints  # a slow machine may let a request wait for long, which is said once
