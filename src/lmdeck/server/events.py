"""What a back end tells while it answers: one event for everything that happens, in order."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from lmdeck.server.jobs import Provider

__all__ = [
    "Event",
    "Finished",
    "LoadProgress",
    "PromptProgress",
    "ReasoningDelta",
    "Said",
    "StopReason",
    "TextDelta",
    "ToolArgumentsDelta",
    "ToolCallStart",
    "ToolOutcome",
]

StopReason = Literal[
    "eosFound",
    "stopStringFound",
    "toolCalls",
    "maxPredictedTokensReached",
    "contextLengthReached",
]
"""LM Studio's own words for why a prediction ended (lmstudio.js, `LLMPredictionStopReason`)."""


class LoadProgress(Struct, frozen=True):
    """The model is being loaded for this request: between 0 and 1, which ends it."""

    fraction: float


class PromptProgress(Struct, frozen=True):
    """The prompt is being processed: between 0 and 1."""

    fraction: float


class TextDelta(Struct, frozen=True):
    """The next piece of the answer's text."""

    text: str


class ReasoningDelta(Struct, frozen=True):
    """The next piece of the model's reasoning."""

    text: str


class ToolCallStart(Struct, frozen=True):
    """A tool call begins; its arguments follow until the next start, text or the end.

    `provider` is set where the server runs the tool itself.
    """

    id: str
    name: str
    provider: Provider | None = None


class ToolArgumentsDelta(Struct, frozen=True):
    """The next piece of the JSON text of the arguments of the call that began last."""

    text: str


class ToolOutcome(Struct, frozen=True):
    """What the tool gave that the server ran for the call before; with a `reason`, why it could not be called."""

    output: str = ""
    reason: str | None = None
    kind: Literal["invalid_name", "invalid_arguments"] = "invalid_arguments"


class Finished(Struct, frozen=True, kw_only=True):
    """The last event of every answer that was not cut short."""

    stop_reason: StopReason
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


Said: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolArgumentsDelta
"""What the model itself says."""

Event: TypeAlias = Said | LoadProgress | PromptProgress | ToolOutcome | Finished
