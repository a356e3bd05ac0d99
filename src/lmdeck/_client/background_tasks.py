"""Coroutines that nobody waits for: kept until they are done, and their errors logged."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("lmdeck.events")


class Tasks:
    """Starts coroutines as tasks of the running loop; a task that nobody keeps could vanish before it is done."""

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._running: set[asyncio.Task[object]] = set()

    def __call__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start one."""
        import asyncio  # here, because it costs a script that never awaits more than all of lmdeck

        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(self._complaint, exc_info=error)
