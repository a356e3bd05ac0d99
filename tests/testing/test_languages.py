"""The same scenario asked from Python, from curl and from PHP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmdeck.testing.isolation import environment_for
from lmdeck.testing.scenario import load_scenario

EXAMPLES = Path(__file__).parents[2] / "examples" / "fake"
PROGRAMS = {"ask.py": [sys.executable], "ask.sh": ["sh"], "ask.php": ["php"]}
NEEDS = {"ask.sh": "curl", "ask.php": "php"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_asks_the_fake(name: str) -> None:
    needed = NEEDS.get(name)
    if needed and shutil.which(needed) is None:
        pytest.skip(f"NO {needed.upper()} on this machine: examples/fake/{name} was not run")
    if needed == "php" and b"curl" not in subprocess.run(["php", "-m"], capture_output=True, check=True).stdout.split():
        pytest.skip(f"NO CURL EXTENSION in PHP on this machine: examples/fake/{name} was not run")
    with load_scenario(EXAMPLES / "scenario.toml").fake() as fake:
        done = subprocess.run(
            [*PROGRAMS[name], str(EXAMPLES / name)],
            env={**os.environ, **environment_for(fake.base_url)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Hello from a fake, über HTTP." in done.stdout
        fake.assert_sent(contains="Say hello.")
