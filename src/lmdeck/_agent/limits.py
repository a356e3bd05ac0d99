"""The limits of an agent run."""

from __future__ import annotations

from typing import TypedDict

from msgspec import Struct

from lmdeck.errors import ConfigurationError


class AgentLimits(Struct, frozen=True, kw_only=True):
    """The limits of a run.

    `max_rounds` is the maximum number of model answers. After `max_failures` consecutive failed calls, the last failure is
    raised. A call with the same name and arguments is run in at most `max_repeats` rounds; after that, the model receives the
    last result again. `tool_timeout` is the maximum run time of a tool in seconds, unless the tool has its own; None means no
    limit.
    """

    max_rounds: int = 8
    max_failures: int = 5
    max_repeats: int = 2
    tool_timeout: float | None = 60.0

    def __post_init__(self) -> None:
        for name in ("max_rounds", "max_failures", "max_repeats"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(
                    f"{name} must be an integer of at least 1, not {value!r}.", hint="Pass 8, for example."
                )
        if self.tool_timeout is not None and not self.tool_timeout > 0:
            raise ConfigurationError(
                f"tool_timeout must be more than 0 seconds, not {self.tool_timeout!r}.", hint="Pass None for no limit."
            )


class RunLimits(TypedDict, total=False):
    """The further limits of a run; see `AgentLimits`."""

    max_failures: int
    max_repeats: int
    tool_timeout: float | None
