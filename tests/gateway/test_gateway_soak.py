"""A short soak of the gateway with faulty hosts, restarts and `kill -9`; `make gateway-soak` runs it for half an hour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "gateway_soak.py"


@pytest.mark.no_cover  # the gateways are killed, and would write no figures
@pytest.mark.skipif(os.name != "posix", reason="the processes are killed by signals")
def test_the_soak_loses_no_answer_and_no_usage(tmp_path: Path) -> None:
    """Every answer is right, an error with a code, or cut with the gateway; the usage of complete answers is stored."""
    command = [sys.executable, str(SCRIPT), "--minutes", "0.2", "--kills", "1", "--keys", "2", "--clients", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(re.search(r"(\d+) complete answers", done.stdout)[1]) > 0  # type: ignore[index]
