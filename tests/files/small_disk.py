"""A disk that is soon full: a small tmpfs where this user may mount one, else a limit on the size of files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES = 64 << 10


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield a folder in which no more than 64 KiB fit."""
    if sys.platform == "win32":
        pytest.skip("NO SMALL DISK: Windows has neither tmpfs nor a limit on the size of files")
    folder.mkdir()
    mount = shutil.which("mount")
    is_mounted = (
        os.geteuid() == 0
        and mount is not None
        and not subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )
    if not is_mounted:
        with _small_files():
            yield folder
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def _small_files() -> Iterator[None]:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
