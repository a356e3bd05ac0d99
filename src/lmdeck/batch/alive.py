"""Detection of live processes: by their number, and by a lock that ends with its process."""

from __future__ import annotations

import os
import socket
import sys
from functools import cache
from pathlib import Path


class AliveLock:
    """A lock on a file, held exclusively or shared.

    On Windows it does nothing: no process gets it exclusively.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        return self._descriptor

    if sys.platform == "win32":

        def try_exclusive(self) -> bool:
            """Return False: there is no such lock here."""
            return False

        def share(self) -> None:
            """Do nothing."""

    else:

        def try_exclusive(self) -> bool:
            """Lock the file exclusively if nobody holds it; return whether that was possible."""
            import fcntl

            try:
                fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        def share(self) -> None:
            """Share the lock; wait while another process holds it exclusively."""
            import fcntl

            fcntl.flock(self._open(), fcntl.LOCK_SH)


@cache
def machine() -> str:
    """Return the name of the space in which process numbers are unique.

    It consists of the host and, on Linux, its boot and namespace.
    """
    parts = [socket.gethostname()]
    try:
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    except OSError:  # another system
        return parts[0]
    return " ".join(parts)


def is_alive(process: int) -> bool:
    """Whether a process of this machine may be alive; on Windows always True."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return True
