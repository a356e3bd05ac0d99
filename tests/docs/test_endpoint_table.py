"""The script that compares the table of endpoints with LM Studio's documentation finds what the table lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "endpoint_table.py"
PAGE = """
`POST {path}`

**Request body**
```lms_params
- name: model
  type: string
  children:
    - name: {parameter}
      type: string
```

**Response fields**
```lms_params
- name: only_in_the_answer
  type: string
```
"""


def compared(folder: Path, path: str, parameter: str) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(PAGE.format(path=path, parameter=parameter))
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_the_table_has_is_passed_over(tmp_path: Path) -> None:
    done = compared(tmp_path, "/api/v1/chat", "context_length")
    assert (done.returncode, done.stdout) == (0, "")


def test_what_it_lacks_is_listed(tmp_path: Path) -> None:
    """Endpoints and request parameters; what is in answers alone is not asked for."""
    done = compared(tmp_path, "/api/v1/dreams", "lucidity")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["page.md: POST /api/v1/dreams", "page.md: lucidity"]
