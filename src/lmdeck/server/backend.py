"""What stands behind the wire: the values and the one protocol by which a back end answers chats and completions.

The server knows HTTP, LM Studio's validation and its chunks; a back end knows how an answer comes to be. Between them travel
typed events, so that a real model in process, a script of a test, or another server behind a gateway all leave through the
same encoder. A back end that only turns a prompt into text implements `lmdeck.server.text_model.TextModel` instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

__all__ = [
    "Backend",
    "BackendError",
    "CalledTool",
    "ChatJob",
    "ChatMessage",
    "ChatTool",
    "CompletionJob",
    "Event",
    "Finished",
    "ModelDescription",
    "ReasoningDelta",
    "Runtime",
    "Sampling",
    "StopReason",
    "TextDelta",
    "ToolArgumentsDelta",
    "ToolCallStart",
    "ToolChoice",
]

ToolChoice = Literal["auto", "none", "required"]
StopReason = Literal[
    "eosFound",
    "stopStringFound",
    "toolCalls",
    "maxPredictedTokensReached",
    "contextLengthReached",
]
"""LM Studio's own words for why a prediction ended (lmstudio.js, `LLMPredictionStopReason`)."""


class BackendError(Exception):
    """A back end cannot answer: `status` is the HTTP status, `body` what is sent where a stream has not begun.

    Raised by the call of `Backend.chat` or `complete` it becomes that status; raised while the events are read, it becomes
    the `event: error` frame of a stream that has begun.
    """

    def __init__(self, message: str, *, status: int = 400, body: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.body = {"error": message} if body is None else body


class ModelDescription(Struct, frozen=True, kw_only=True):
    """One model as the listings show it.

    Sizes are bytes, context lengths tokens; `loaded_context_length` is None where the model is not loaded.
    """

    key: str
    display_name: str
    type: Literal["llm", "vlm", "embeddings"] = "llm"
    publisher: str = "unknown"
    architecture: str = "unknown"
    quantization: str | None = None
    bits_per_weight: float | None = None
    format: Literal["gguf", "mlx"] = "gguf"
    size_bytes: int = 0
    parameters: str | None = None
    max_context_length: int = 0
    loaded_context_length: int | None = None
    trained_for_tool_use: bool = False


class Runtime(Struct, frozen=True, kw_only=True):
    """The engine below, as the `runtime` field of an answer names it."""

    name: str
    version: str
    supported_formats: tuple[str, ...] = ("gguf",)


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen and when to stop; None leaves a choice to the back end."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class CalledTool(Struct, frozen=True, kw_only=True):
    """A tool call in the history; `arguments` is the JSON text that was sent."""

    id: str
    name: str
    arguments: str


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One turn of the history: its text parts joined, `images` as the data URIs they came in."""

    role: str
    text: str = ""
    images: tuple[str, ...] = ()
    tool_calls: tuple[CalledTool, ...] = ()
    tool_call_id: str | None = None


class ChatTool(Struct, frozen=True, kw_only=True):
    """A tool on offer; `parameters` is the JSON Schema of its arguments, always of type object."""

    name: str
    parameters: Mapping[str, Any]
    description: str = ""


class ChatJob(Struct, frozen=True, kw_only=True):
    """A chat to answer. `json_schema` None: free text."""

    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling = Sampling()
    tools: tuple[ChatTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    json_schema: Mapping[str, Any] | bool | None = None


class CompletionJob(Struct, frozen=True, kw_only=True):
    """A raw prompt to continue, with no template around it."""

    model: str
    prompt: str
    sampling: Sampling = Sampling()


class TextDelta(Struct, frozen=True):
    """The next piece of the answer's text."""

    text: str


class ReasoningDelta(Struct, frozen=True):
    """The next piece of the model's reasoning."""

    text: str


class ToolCallStart(Struct, frozen=True):
    """A tool call begins; its arguments follow until the next start, text or the end."""

    id: str
    name: str


class ToolArgumentsDelta(Struct, frozen=True):
    """The next piece of the JSON text of the arguments of the call that began last."""

    text: str


class Finished(Struct, frozen=True, kw_only=True):
    """The last event of every answer that was not cut short."""

    stop_reason: StopReason
    prompt_tokens: int
    completion_tokens: int


Event: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolArgumentsDelta | Finished


class Backend(Protocol):
    """What the server needs from whatever answers behind it.

    Closing the generator that `chat` or `complete` gave (`aclose`, or cancelling the task that waits on it) stops the
    generation, also while it still waits for its turn.
    """

    @property
    def runtime(self) -> Runtime:
        """The engine's name and version."""
        ...

    def models(self) -> Sequence[ModelDescription]:
        """List the models on hand, the one that answers requests without a model name first."""
        ...

    def chat(self, job: ChatJob) -> AsyncGenerator[Event, None]:
        """Answer a chat.

        Raises:
            BackendError: By the call itself: refused. While iterating: failed.
        """
        ...

    def complete(self, job: CompletionJob) -> AsyncGenerator[Event, None]:
        """Continue a prompt: text events, then `Finished`.

        Raises:
            BackendError: As for `chat`.
        """
        ...
