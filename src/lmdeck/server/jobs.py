"""The validated requests that a back end receives, and the values it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from lmdeck._encoders.backend_events import Provider

ToolChoice = Literal["auto", "none", "required"]


class Instance(Struct, frozen=True, kw_only=True):
    """A loaded model; `config` holds the other load parameters that LM Studio reports."""

    id: str
    context_length: int
    config: Mapping[str, int | float | bool] = {}


class ModelDescription(Struct, frozen=True, kw_only=True):
    """One model as the listings show it.

    Sizes are in bytes, context lengths in tokens. `instances` is empty while the model is not loaded; `on_demand` is whether a
    request loads it then, `decides` whether it answers `/v1/decisions`.
    """

    key: str
    display_name: str
    type: Literal["llm", "vlm", "embeddings", "decision"] = "llm"
    publisher: str = "unknown"
    architecture: str = "unknown"
    quantization: str | None = None
    bits_per_weight: float | None = None
    format: Literal["gguf", "mlx"] = "gguf"
    size_bytes: int = 0
    parameters: str | None = None
    max_context_length: int = 0
    instances: tuple[Instance, ...] = ()
    on_demand: bool = True
    trained_for_tool_use: bool = False
    decides: bool = False

    @property
    def loaded_context_length(self) -> int | None:
        """The context length of the first instance; None if the model is not loaded."""
        return self.instances[0].context_length if self.instances else None


class EngineRuntime(Struct, frozen=True, kw_only=True):
    """The name and version of an engine, sent as the `runtime` field of an answer."""

    name: str
    version: str
    supported_formats: tuple[str, ...] = ("gguf",)


class Sampling(Struct, frozen=True, kw_only=True):
    """Sampling parameters and stop conditions; None means the back end's default."""

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
    """One message of the history.

    Its text parts are joined; its `images` are the data URIs that were sent.
    """

    role: str
    text: str = ""
    images: tuple[str, ...] = ()
    tool_calls: tuple[CalledTool, ...] = ()
    tool_call_id: str | None = None


class ChatTool(Struct, frozen=True, kw_only=True):
    """An offered tool; `parameters` is the JSON Schema of its arguments, always of type object."""

    name: str
    parameters: Mapping[str, Any]
    description: str = ""


class Integration(Struct, frozen=True, kw_only=True):
    """Tools that the server runs itself: of a plugin, or of an MCP server for this request only.

    `url` is that of the MCP server.

    If `allowed_tools` is None, all of them are allowed.
    """

    provider: Provider
    url: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    headers: Mapping[str, str] = {}


class ChatJob(Struct, frozen=True, kw_only=True):
    """A chat to answer.

    If `json_schema` is None, the answer is free text. `reasoning` is the requested effort, as the client sent it; `ttl` is in
    seconds.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling = Sampling()
    tools: tuple[ChatTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    json_schema: Mapping[str, Any] | bool | None = None
    reasoning: str | None = None
    context_length: int | None = None
    integrations: tuple[Integration, ...] = ()
    ttl: int | None = None


class CompletionJob(Struct, frozen=True, kw_only=True):
    """A raw prompt to continue, without a chat template."""

    model: str
    prompt: str
    sampling: Sampling = Sampling()


class EmbeddingJob(Struct, frozen=True, kw_only=True):
    """Texts to embed; `as_base64` is how the client wants the vectors."""

    model: str
    texts: tuple[str, ...]
    as_base64: bool = False


class Embedded(Struct, frozen=True, kw_only=True):
    """One vector for each text, in order."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class DecisionOption(Struct, frozen=True):
    """One possible answer: its value on the wire, and its meaning."""

    value: str | bool
    description: str = ""


class DecisionQuestion(Struct, frozen=True, kw_only=True):
    """One typed question.

    The options of a predicate are true and false; those of a score are its levels in ascending order.
    """

    name: str | None
    kind: Literal["predicate", "choice", "score"]
    instructions: str
    options: tuple[DecisionOption, ...]


class DecisionJob(Struct, frozen=True, kw_only=True):
    """Typed questions about a text, with images as the data URIs that were sent."""

    model: str
    text: str
    questions: tuple[DecisionQuestion, ...]
    images: tuple[str, ...] = ()


class Decided(Struct, frozen=True, kw_only=True):
    """The probabilities of each question's options, in order.

    None if the model declines to answer it.
    """

    distributions: tuple[tuple[float, ...] | None, ...]
    prompt_tokens: int


class LoadJob(Struct, frozen=True, kw_only=True):
    """A model to load.

    `config` holds the other parameters of `POST /api/v1/models/load` that were sent.
    """

    model: str
    context_length: int | None = None
    config: Mapping[str, int | float | bool] = {}


class Loaded(Struct, frozen=True, kw_only=True):
    """A loaded instance; `seconds` is the load time, None for the duration of the request."""

    instance: Instance
    seconds: float | None = None
    type: Literal["llm", "embedding"] = "llm"


class DownloadState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The progress of a download, in LM Studio's fields (docs, `2_rest/download-status.md`).

    Times are ISO 8601.
    """

    status: Literal["downloading", "paused", "completed", "failed", "already_downloaded"]
    job_id: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None
    bytes_per_second: float | None = None
    started_at: str | None = None
    completed_at: str | None = None
    estimated_completion: str | None = None
