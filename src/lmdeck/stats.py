"""The cost of an answer: tokens and time."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["DraftTokens", "Measured", "Stats", "Usage"]


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """The tokens of one answer, as the server counted them.

    `cached_tokens` is the part of the prompt that was cached, `reasoning_tokens` the part of the completion that is reasoning;
    both are None if the server does not report them.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of two usages; a count that is unknown in both stays None."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
        )

    def to_dict(self) -> dict[str, int]:
        """Return the counts under OpenAI's names, without those that are unknown."""
        counts = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: count for name, count in counts.items() if count is not None}


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other + (one or 0)


class Measured(Struct, frozen=True, kw_only=True, gc=False):
    """The times measured by the client, in seconds since the answered attempt was sent.

    `time_to_first_token` ends with the first content, reasoning or tool call; for an answer that is not streamed, that is
    when the whole answer arrived. `generation_time` runs from there to the end.
    """

    time_to_first_token: float | None = None
    generation_time: float | None = None
    total_time: float | None = None


class DraftTokens(Struct, frozen=True, kw_only=True, gc=False):
    """The tokens of speculative decoding.

    They are counted as written by the draft model, and as accepted by the model.

    None where the server does not say (LM Studio docs `api-changelog.md`, 0.3.10; llama.cpp's `timings`).
    """

    total: int | None = None
    accepted: int | None = None
    rejected: int | None = None


class Stats(Struct, frozen=True, kw_only=True, gc=False):
    """The speed of an answer: times in seconds, speed in tokens per second.

    The figures are LM Studio's if it sends them (`/api/v0` and non-streamed `/v1` answers do, see LM Studio's docs,
    `2_rest/endpoints.md`), otherwise the client's; `measured` always has the client's.
    A speed is measured only if the generation took 20 ms or more: an answer that arrives at once has none.
    `stop_reason` is LM Studio's value (`"eosFound"`, `"maxPredictedTokensReached"`, …), never the finish reason.
    `model_load_time` is set if the request loaded the model. `queue_time` is the wait in this client's queue.
    `draft_tokens` is set if a draft model helped.
    """

    time_to_first_token: float | None = None
    tokens_per_second: float | None = None
    generation_time: float | None = None
    stop_reason: str | None = None
    model_load_time: float | None = None
    queue_time: float = 0.0
    draft_tokens: DraftTokens | None = None
    measured: Measured = Measured()
