"""What is not installed is named, with the command that installs it: by each integration, and by each example."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def last_words(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("django", "django"),
        ("fastapi", "fastapi"),
        ("flask", "click"),
        ("httpx", "httpx"),
        ("httpx2", "httpx2"),
        ("openai", "openai"),
    ],
)
def test_an_integration_names_its_extra(module: str, package: str) -> None:
    found = last_words(f"import sys; sys.modules[{package!r}] = None; import lmdeck.contrib.{module}")
    assert found == (
        f"ModuleNotFoundError: This part of lmdeck needs the package {package!r}, which is not installed. "
        f'Install it with `pip install "lmdeck[{module}]"`.'
    )


@pytest.mark.parametrize("framework", ["django", "fastapi", "flask"])
def test_an_example_names_what_to_install(framework: str) -> None:
    file = str(EXAMPLES / f"{framework}_chat" / "__main__.py")
    found = last_words(f"import sys, runpy; sys.modules[{framework!r}] = None; runpy.run_path({file!r})")
    assert f'pip install -e ".[cli,engine,{framework}]"' in found
