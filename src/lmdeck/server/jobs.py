"""What a back end is asked: chats, completions, embeddings, models, each checked before it gets here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

__all__ = [
    "CalledTool",
    "ChatJob",
    "ChatMessage",
    "ChatTool",
    "CompletionJob",
    "Decided",
    "DecisionJob",
    "DecisionOption",
    "DecisionQuestion",
    "DownloadState",
    "Embedded",
    "EmbeddingJob",
    "Instance",
    "Integration",
    "LoadJob",
    "Loaded",
    "ModelDescription",
    "Provider",
    "Runtime",
    "Sampling",
    "ToolChoice",
]

ToolChoice = Literal["auto", "none", "required"]


class Instance(Struct, frozen=True, kw_only=True):
    """A model in memory; `config` holds what else LM Studio tells of how it was loaded."""

    id: str
    context_length: int
    config: Mapping[str, int | float | bool] = {}


class ModelDescription(Struct, frozen=True, kw_only=True):
    """One model as the listings show it.

    Sizes are bytes, context lengths tokens; `instances` is empty where the model is not loaded. `on_demand` says whether a
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
        """The context length of the first instance; None where the model is not loaded."""
        return self.instances[0].context_length if self.instances else None


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


class Provider(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a tool that the server runs comes from, as LM Studio's `provider_info` names it."""

    type: Literal["plugin", "ephemeral_mcp"]
    plugin_id: str | None = None
    server_label: str | None = None


class Integration(Struct, frozen=True, kw_only=True):
    """Tools that the server runs by itself: a plugin, or an MCP server at `url` for this request alone.

    `allowed_tools` None allows all of them.
    """

    provider: Provider
    url: str | None = None
    allowed_tools: tuple[str, ...] | None = None
    headers: Mapping[str, str] = {}


class ChatJob(Struct, frozen=True, kw_only=True):
    """A chat to answer. `json_schema` None: free text. `reasoning` is the effort that was asked for, in the client's word."""

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
    """A raw prompt to continue, with no template around it."""

    model: str
    prompt: str
    sampling: Sampling = Sampling()


class EmbeddingJob(Struct, frozen=True, kw_only=True):
    """Texts to turn into vectors."""

    model: str
    texts: tuple[str, ...]


class Embedded(Struct, frozen=True, kw_only=True):
    """One vector a text, in order."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class DecisionOption(Struct, frozen=True):
    """One possible answer: its value on the wire, and what it means."""

    value: str | bool
    description: str = ""


class DecisionQuestion(Struct, frozen=True, kw_only=True):
    """One typed question. A predicate's options are true and false, a score's are its levels in ascending order."""

    name: str | None
    kind: Literal["predicate", "choice", "score"]
    instructions: str
    options: tuple[DecisionOption, ...]


class DecisionJob(Struct, frozen=True, kw_only=True):
    """Typed questions about a text, with images as the data URIs they came in."""

    model: str
    text: str
    questions: tuple[DecisionQuestion, ...]
    images: tuple[str, ...] = ()


class Decided(Struct, frozen=True, kw_only=True):
    """For each question the probability of each of its options, in order; None where the model declines to answer."""

    distributions: tuple[tuple[float, ...] | None, ...]
    prompt_tokens: int


class LoadJob(Struct, frozen=True, kw_only=True):
    """A model to load; `config` holds the other parameters of `POST /api/v1/models/load` that were given."""

    model: str
    context_length: int | None = None
    config: Mapping[str, int | float | bool] = {}


class Loaded(Struct, frozen=True, kw_only=True):
    """An instance that is ready; `seconds` is how long loading took, None: as long as the request."""

    instance: Instance
    seconds: float | None = None
    type: Literal["llm", "embedding"] = "llm"


class DownloadState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a download is, in LM Studio's own fields (docs, `2_rest/download-status.md`); times are ISO 8601."""

    status: Literal["downloading", "paused", "completed", "failed", "already_downloaded"]
    job_id: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None
    bytes_per_second: float | None = None
    started_at: str | None = None
    completed_at: str | None = None
    estimated_completion: str | None = None
