"""The files that processes lock to load a model in turn."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

from lmdeck._files import open_locked


def open_lock(server: str, model: str) -> IO[bytes]:
    """Return the open file of a model, which is locked until it is closed or the process ends.

    The files are empty and remain, in a folder of this user.

    Raises:
        BlockingIOError: Another process has locked it.
        OSError: The folder cannot be used, or belongs to another user.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / f"lmdeck-locks-{user or 0}"
    with suppress(FileExistsError):
        folder.mkdir(mode=stat.S_IRWXU)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or user not in (None, found.st_uid):
        raise PermissionError(f"{folder} belongs to another user")
    name = sha256(f"{server}\0{model}".encode(errors="surrogatepass")).hexdigest()[:32]
    return open_locked(folder / f"{name}.lock")
