"""The table of endpoints: written from its data, compared with LM Studio's documentation, and true of the fake."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import urllib3

from lmdeck.testing import FakeLMStudio

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "endpoint_table.py"
ENDPOINTS = tomllib.loads((ROOT / "scripts" / "endpoints.toml").read_text(encoding="utf-8"))["endpoint"]
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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compared(folder: Path, path: str, parameter: str) -> subprocess.CompletedProcess[str]:
    (folder / "page.md").write_text(PAGE.format(path=path, parameter=parameter))
    return run(str(folder))


def test_the_page_has_the_table_of_its_data() -> None:
    """`python scripts/endpoint_table.py` writes it."""
    assert run("--check").returncode == 0


def test_every_unsupported_entry_has_a_reason() -> None:
    """Every entry says yes, no, or as given."""
    entries = [
        (endpoint["path"], entry)
        for endpoint in ENDPOINTS
        for entry in (endpoint, *endpoint.get("parameters", ()), *endpoint.get("answers", ()))
    ]
    assert {entry["support"] for _, entry in entries} == {"yes", "as given", "no"}
    assert [path for path, entry in entries if entry["support"] == "no" and not entry["how"]] == []


def test_known_entries_are_not_reported(tmp_path: Path) -> None:
    done = compared(tmp_path, "/api/v1/chat", "context_length")
    assert (done.returncode, done.stdout) == (0, "")


def test_missing_entries_are_listed(tmp_path: Path) -> None:
    """Endpoints and request parameters; what is in answers alone is not asked for."""
    done = compared(tmp_path, "/api/v1/dreams", "lucidity")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["page.md: POST /api/v1/dreams", "page.md: model", "page.md: lucidity"]


def test_a_parameter_of_another_endpoint_does_not_count(tmp_path: Path) -> None:
    """The same parameter of another endpoint needs its own entry."""
    done = compared(tmp_path, "/api/v1/models/load", "temperature")
    assert done.stdout.splitlines() == ["page.md: temperature"]


def test_the_list_of_parameters_of_a_page_is_read(tmp_path: Path) -> None:
    """The form of the pages on OpenAI's API, which name their endpoint in their file name alone."""
    folder = tmp_path / "3_openai-compat"
    folder.mkdir()
    words = "### Supported payload parameters\n\n```py\nmodel\ntop_k\nlucidity\n```\n"
    (folder / "chat-completions.md").write_text(words)
    assert run(str(tmp_path)).stdout.splitlines() == ["3_openai-compat/chat-completions.md: lucidity"]


def test_the_fake_has_every_endpoint() -> None:
    """It answers, if only with what it misses in an empty request; `/lms-status` is of LM Studio's programs alone."""
    unexpected = []
    with FakeLMStudio(strict=False) as fake:
        for path in (endpoint["path"] for endpoint in ENDPOINTS if endpoint["path"] != "GET /lms-status"):
            method, _, url = path.partition(" ")
            whole = fake.base_url + url.replace("{model}", "qwen2.5-7b-instruct").replace(":job_id", "job_1")
            body, headers = b"{}" if method == "POST" else None, {"content-type": "application/json"}
            answer = urllib3.request(method, whole, body=body, headers=headers, retries=False)
            if b"Unexpected endpoint" in answer.data:
                unexpected.append(path)
    assert unexpected == []
