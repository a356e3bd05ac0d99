"""How far an agent may go."""

from __future__ import annotations

from msgspec import Struct

from lmdeck.errors import ConfigurationError


class AgentLimits(Struct, frozen=True, kw_only=True):
    """The limits of a run.

    `max_rounds` answers of the model at most. `max_failures` calls in a row may fail, for whatever reason, before the last
    failure is raised. A call with the same name and arguments is run in `max_repeats` rounds; after that the model gets
    its last result again. `tool_timeout` is the longest a tool may run, in seconds, where it sets no limit of its own;
    None is without end.
    """

    max_rounds: int = 8
    max_failures: int = 5
    max_repeats: int = 2
    tool_timeout: float | None = 60.0

    def __post_init__(self) -> None:
        for name in ("max_rounds", "max_failures", "max_repeats"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, not {value!r}.", hint="Try 8.")
        if self.tool_timeout is not None and not self.tool_timeout > 0:
            raise ConfigurationError(
                f"tool_timeout must be more than 0 seconds, not {self.tool_timeout!r}.", hint="None is without end."
            )
