"""Background tasks: coroutines that nobody awaits, whose errors are logged."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("lmdeck.events")


class Tasks:
    """A starter of background tasks that protects them from garbage collection.

    The event loop itself holds only weak references to its tasks.
    """

    def __init__(self, complaint: str) -> None:
        self._complaint = complaint
        self._running: set[asyncio.Task[object]] = set()

    def __call__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a coroutine as a task of the running loop."""
        import asyncio  # imported late: it costs more than all of lmdeck

        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(self._complaint, exc_info=error)
