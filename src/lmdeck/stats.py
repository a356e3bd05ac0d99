"""What an answer cost: tokens and time."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Measured", "Stats", "Usage"]


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """The tokens of one answer, as the server counted them.

    Of the prompt's, `cached_tokens` were not read anew; of the completion's, `reasoning_tokens` are the model's reasoning.
    Both are None where the server does not say.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of two answers; what neither server said stays unknown."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
        )

    def to_dict(self) -> dict[str, int]:
        """Return the three counts under OpenAI's names, and the other two where they are known."""
        counts = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: count for name, count in counts.items() if count is not None}


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)


class Measured(Struct, frozen=True, kw_only=True, gc=False):
    """The client's own clock, in seconds from the sending of the attempt that was answered.

    `time_to_first_token` ends with the first content, reasoning or call that was read; where the answer was not streamed
    that is the moment the whole answer came. `generation_time` runs from there to the end.
    """

    time_to_first_token: float | None = None
    generation_time: float | None = None
    total_time: float | None = None


class Stats(Struct, frozen=True, kw_only=True, gc=False):
    """How fast an answer came: times in seconds, speed in tokens a second.

    The figures are LM Studio's where it sends them (`/api/v0` and non-streamed `/v1` answers do, see LM Studio's docs,
    `2_rest/endpoints.md`), else the client's; `measured` always has the client's own.
    `stop_reason` is LM Studio's word (`"eosFound"`, `"maxPredictedTokensReached"`, …) and never the finish reason.
    `model_load_time` is said where the request loaded the model; `queue_time` is how long it waited in this process.
    """

    time_to_first_token: float | None = None
    tokens_per_second: float | None = None
    generation_time: float | None = None
    stop_reason: str | None = None
    model_load_time: float | None = None
    queue_time: float = 0.0
    measured: Measured = Measured()
