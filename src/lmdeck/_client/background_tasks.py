"""Background tasks: coroutines that are not awaited; their errors are logged."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("lmdeck.events")


class BackgroundTasks:
    """A starter of background tasks that holds references to them.

    The event loop has only weak references, so that a task could be garbage-collected.
    """

    def __init__(self, error_text: str) -> None:
        self._error_text = error_text
        self._running: set[asyncio.Task[object]] = set()

    def __call__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a coroutine as a task of the running loop."""
        import asyncio  # imported late: importing it takes longer than lmdeck

        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error(self._error_text, exc_info=error)
