"""One load at a time per host, across the gateway's processes.
Two processes would otherwise load a model twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path

from lmdeck.gateway.hosts import Host

__all__ = ["LoadGuard"]

POLL_SECONDS = 0.05


class LoadGuard:
    """File locks in a folder that the processes share.
    Without a folder there is one process, and no lock is needed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @asynccontextmanager
    async def hold(self, host: Host) -> AsyncIterator[None]:
        """Wait until no other process loads a model on a host, then fetch its model list again."""
        if self._folder is None:
            yield
            return
        import fcntl  # not on Windows, where there is one process

        name = blake2b(host.config.url.encode(), digest_size=8).hexdigest()
        with (self._folder / name).open("wb") as file:
            while not _is_locked(fcntl.flock, file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):  # noqa: ASYNC110  # another process frees it
                await asyncio.sleep(POLL_SECONDS)
            await host.poll()
            yield


def _is_locked(flock: object, descriptor: int, flags: int) -> bool:
    assert callable(flock)
    try:
        flock(descriptor, flags)
    except BlockingIOError:
        return False
    return True
