"""Events published by a running handler, which appear among the events of the run."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from lmdeck.events import ToolServerLost

Report: TypeAlias = "Callable[[ToolServerLost], None]"


def _ignore(_: ToolServerLost) -> None:
    """Ignore an event of a handler that was called outside a run."""


_report: ContextVar[Report] = ContextVar("lmdeck_report", default=_ignore)


def current_report() -> Report:
    """Return the function that publishes events of the current call.

    Outside a run, it ignores them.
    """
    return _report.get()


def report_to(report: Report) -> None:
    """Set the function that publishes events of handlers in the current context."""
    _report.set(report)
