"""The workflows of CI, checked against the sessions that they run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = re.compile(r"nox -s (\"[^\"]+\"|[\w ${}.]+)")
MATRIX = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")


def sessions() -> set[str]:
    """Return the names of all sessions of the noxfile."""
    command = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^[*-] (\S+)", listed, re.MULTILINE))


def sessions_run_by(workflow: str) -> Iterator[str]:
    """Yield the names of the sessions that a workflow runs, with each value of its matrix."""
    for run in RUNS.findall(workflow):
        names = [run.strip('"')] if run.startswith('"') or "${{" in run else run.split()
        for name in names:
            variable = MATRIX.search(name)
            values = re.search(rf"{variable[1]}: \[(.*)\]", workflow)[1].split(",") if variable else [""]
            yield from (MATRIX.sub(value.strip(' "'), name) for value in values)


def test_the_workflows_run_sessions_that_exist() -> None:
    """Every `nox -s NAME` of a workflow names a session, for every value of the matrix."""
    found = [
        name for path in (ROOT / ".github" / "workflows").glob("*.yml") for name in sessions_run_by(path.read_text())
    ]
    assert {"lint", "django(5.2)", "locked", "package"} <= set(found)
    assert set(found) <= sessions()
