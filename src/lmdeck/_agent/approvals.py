"""The decision on a tool call before it is run: allowed, refused, or postponed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeAlias

from lmdeck.messages import ToolCall


class Pause(Enum):
    """The type of `PAUSE`, the postponed decision."""

    PAUSE = "pause"


PAUSE = Pause.PAUSE
"""The return value of `approve` that postpones the decision: the run ends with a `PausedRun`."""

Decision: TypeAlias = bool | str
"""True allows a call; False refuses it; a text refuses it with a reason for the model."""

Approve: TypeAlias = Callable[[ToolCall], "Decision | Awaitable[Decision]"]
PausingApprove: TypeAlias = Callable[[ToolCall], "Decision | Pause | Awaitable[Decision | Pause]"]


def refusal_of(decision: object) -> str | None:
    """Return the reason why a call is refused, or `""` without a reason; None if it is allowed."""
    if isinstance(decision, str):
        return decision
    return None if decision else ""
