"""The examples run, each with one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmdeck.testing.scenario import load_scenario
from loopback import PATIENCE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.no_cover  # what an example calls, other tests measure
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(example: Path) -> None:
    """The scenario beside it makes it end well, print something and complain about nothing."""
    with load_scenario(EXAMPLES / "fake" / "scenario.toml").fake() as fake:
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
