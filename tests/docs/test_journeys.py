"""Journeys of newcomers: the documentation's code, unchanged, in a fresh folder and in processes of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asking import last_asked
from lmdeck.testing import FakeLMStudio
from lmdeck.testing.isolation import environment_for
from loopback import PATIENCE

ROOT = Path(__file__).parents[2]
OURS = [sys.executable, "-m", "lmdeck"]

pytestmark = pytest.mark.no_cover  # what a newcomer calls, other tests measure


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    """An LM Studio in which one model is loaded, which says hello and calls every tool that it is offered once."""
    with FakeLMStudio(strict=False) as fake:
        weather = fake.when(lambda request: bool(request.tools) and not request.tool_uses)
        weather.tool_call("get_weather", city="Paris")
        fake.when(lambda _: True).reply("Hello **there**.")
        yield fake


def run(
    command: list[str], folder: Path, fake: FakeLMStudio, *, strict: bool = True
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment_for(fake.base_url), "PYTHONWARNINGS": "error" if strict else ""}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
        check=False,
    )


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/debugging.md"])
def test_a_script(page: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    """The first program of the README and of the site names no model, and runs."""
    for number, code in enumerate(blocks(page) if page == "docs/debugging.md" else blocks(page)[:1]):
        assert "qwen" not in code
        (tmp_path / f"script{number}.py").write_text(code)
        done = run([sys.executable, f"script{number}.py"], tmp_path, fake)
        assert done.returncode == 0, done.stderr
        assert ("Hello" in done.stdout) == ("print(" in code)
        if "debug=True" in code:
            assert "POST" in done.stderr


def test_from_openai_python(fake: FakeLMStudio, tmp_path: Path) -> None:
    """The same messages work after one import is changed."""
    (tmp_path / "script.py").write_text(blocks("docs/coming-from-openai.md")[0])
    done = run([sys.executable, "script.py"], tmp_path, fake)
    assert (done.returncode, done.stdout) == (0, "Hello **there**.\n"), done.stderr
    assert last_asked(fake).body["temperature"] == 0.2


def test_a_tester(fake: FakeLMStudio, tmp_path: Path) -> None:
    """The test with the fixture is found and passes, without settings and without a server."""
    (tmp_path / "test_app.py").write_text(next(code for code in blocks("docs/testing.md") if "def test_answer" in code))
    done = run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."], tmp_path, fake, strict=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert not fake.requests  # the fixture has its own fake


@pytest.mark.skipif(
    shutil.which("php") is None, reason="the journey in PHP needs the Debian packages php-cli and php-curl"
)
def test_php(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Both programs of the page print the answer under `lmdeck run`, and an error on standard error."""
    for number, code in enumerate(blocks("docs/other-languages.md", "php")):
        (tmp_path / f"ask{number}.php").write_text(code)
        done = run([*OURS, "run", "--", "php", f"ask{number}.php"], tmp_path, fake)
        assert (done.returncode, done.stdout) == (0, "Hello **there**.\n"), done.stderr
    assert last_asked(fake).stream
    fake.fail_always("cut")
    done = run([*OURS, "run", "--", "php", "ask1.php"], tmp_path, fake)
    assert done.returncode == 1
    assert done.stderr.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the journey over HTTP needs curl")
def test_curl(fake: FakeLMStudio, tmp_path: Path) -> None:
    """The command of the page works with the address of a running proxy."""
    (command,) = re.findall(
        r"^    (curl .*?)\n\n", (ROOT / "docs/other-languages.md").read_text(), re.MULTILINE | re.DOTALL
    )
    script = command.replace("http://127.0.0.1:4000/v1", "$OPENAI_BASE_URL")
    done = run([*OURS, "run", "--", "sh", "-c", f"{script} --silent"], tmp_path, fake)
    assert '"Hello **there**."' in done.stdout, done.stderr


def test_jupyter(fake: FakeLMStudio, tmp_path: Path) -> None:
    """Every cell of the page runs in a real kernel, top-level await included; a reply is shown as Markdown."""
    places = {"IPYTHONDIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_cells.py"))],
        cwd=tmp_path,
        env={**os.environ, **environment_for(fake.base_url), **places},
        input=json.dumps(blocks("docs/jupyter.md")),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 9,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert [cell["status"] for cell in shown] == ["ok"] * len(shown)
    assert shown[0]["text/markdown"] == "Hello **there**."
    assert shown[1]["stdout"] == "Hello **there**."
    assert shown[2]["text/plain"] == "['Hello **there**.', 'Hello **there**.']"
    assert shown[3]["text/markdown"] == "Hello **there**."


@pytest.mark.engine
@pytest.mark.usefixtures("weights")
def test_the_engine_in_python(fake: FakeLMStudio, tmp_path: Path) -> None:
    """The page's program loads the model, and prints an answer of it."""
    (tmp_path / "script.py").write_text(blocks("docs/engine.md")[0])
    done = run([sys.executable, "script.py"], tmp_path, fake)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not fake.requests
