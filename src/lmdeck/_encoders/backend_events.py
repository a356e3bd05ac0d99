"""The events of a back end while it answers, in the order in which they happen."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

StopReason = Literal[
    "eosFound",
    "stopStringFound",
    "toolCalls",
    "maxPredictedTokensReached",
    "contextLengthReached",
]
"""Why a prediction ended, in LM Studio's terms (lmstudio.js, `LLMPredictionStopReason`)."""


class Provider(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The provider of a tool that the server runs; LM Studio's `provider_info`."""

    type: Literal["plugin", "ephemeral_mcp"]
    plugin_id: str | None = None
    server_label: str | None = None


class LoadProgress(Struct, frozen=True):
    """Progress of loading the model for this request, from 0 to 1; 1 is the end."""

    fraction: float


class PromptProgress(Struct, frozen=True):
    """Progress of processing the prompt, from 0 to 1."""

    fraction: float


class TextDelta(Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class ReasoningTextDelta(Struct, frozen=True):
    """A piece of the model's reasoning."""

    text: str


class ToolCallOpened(Struct, frozen=True):
    """The start of a tool call; its arguments follow until the next call, text or the end.

    `provider` is set if the server runs the tool itself.
    """

    id: str
    name: str
    provider: Provider | None = None


class ToolArgumentsDelta(Struct, frozen=True):
    """A piece of the JSON text of the latest call's arguments."""

    text: str


class ToolOutcome(Struct, frozen=True):
    """The output of a tool that the server ran for the preceding call.

    If it could not run the tool, `reason` says why.
    """

    output: str = ""
    reason: str | None = None
    kind: Literal["invalid_name", "invalid_arguments"] = "invalid_arguments"


class Finished(Struct, frozen=True, kw_only=True):
    """The last event of every complete answer."""

    stop_reason: StopReason
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0


ModelOutput: TypeAlias = TextDelta | ReasoningTextDelta | ToolCallOpened | ToolArgumentsDelta
"""The output of the model itself."""

BackendEvent: TypeAlias = ModelOutput | LoadProgress | PromptProgress | ToolOutcome | Finished
