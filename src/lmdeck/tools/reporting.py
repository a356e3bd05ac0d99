"""What a running handler can publish: events that belong to its call and appear among those of the run."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from lmdeck.events import ToolServerLost

Report: TypeAlias = "Callable[[ToolServerLost], None]"


def _ignore(_: ToolServerLost) -> None:
    """Publish nothing: the handler was called outside a run."""


_report: ContextVar[Report] = ContextVar("lmdeck_report", default=_ignore)


def current_report() -> Report:
    """Return what publishes an event of the call that is running; outside a run it does nothing."""
    return _report.get()


def report_to(report: Report) -> None:
    """Let the handler that is about to run in this context publish its events there."""
    _report.set(report)
