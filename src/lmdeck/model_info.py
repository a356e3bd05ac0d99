"""Models and the server's health, as the user sees them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from lmdeck.errors import LMStudioError

__all__ = [
    "ApiLevel",
    "DownloadJob",
    "DownloadStatus",
    "Health",
    "LoadedModel",
    "ModelInfo",
    "ModelInstance",
    "ReasoningOptions",
]

ApiLevel = Literal["v1", "v0", "openai"]
DownloadStatus = Literal["downloading", "paused", "completed", "failed", "already_downloaded"]


class ModelInstance(Struct, frozen=True, kw_only=True):
    """A model in memory: `id` is what requests name, `parallel` how many answers it writes at once."""

    id: str
    context_length: int | None = None
    parallel: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


class ReasoningOptions(Struct, frozen=True, kw_only=True):
    """The settings of a model's reasoning: those that a request may name, and the one where it names none."""

    allowed_options: list[str] = field(default_factory=list)
    default: str | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model on the server's disk. What the server did not say is None, empty, or 0 for `size_bytes`.

    `type` is `"llm"`, `"vlm"`, `"embedding"`, `"decision"`, or the server's own word for another kind.
    """

    key: str
    type: str = "llm"
    display_name: str = ""
    publisher: str | None = None
    architecture: str | None = None
    quantization: str | None = None
    format: str | None = None
    params: str | None = None
    size_bytes: int = 0
    max_context_length: int | None = None
    capabilities: list[str] = field(default_factory=list)
    instances: list[ModelInstance] = field(default_factory=list)
    reasoning: ReasoningOptions | None = None
    variants: list[str] = field(default_factory=list)
    selected_variant: str | None = None
    description: str | None = None

    @property
    def loaded(self) -> bool:
        """Tell whether the model is in memory."""
        return bool(self.instances)

    @property
    def is_chat_model(self) -> bool:
        """Whether the model answers chats: it is of the type `"llm"` or `"vlm"`."""
        return self.type in {"llm", "vlm"}

    @property
    def decides(self) -> bool:
        """Whether the model answers `lm.decide`: a decision model, or one whose server says that it does."""
        return self.type == "decision" or "decisions" in self.capabilities


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A model that is in memory now: `instance_id` is what requests and `unload` name.

    `load_time` is in seconds, None where it was there before (`already_loaded`); `config` is what the server said of it.
    """

    instance_id: str
    type: str = "llm"
    load_time: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    already_loaded: bool = False


class DownloadJob(Struct, frozen=True, kw_only=True):
    """A download as the server last told of it: sizes in bytes, times in ISO 8601.

    `job_id` is None for a model that was there already. What the server did not say is None.
    """

    status: DownloadStatus
    job_id: str | None = None
    downloaded_bytes: int | None = None
    total_size_bytes: int | None = None
    bytes_per_second: float | None = None
    started_at: str | None = None
    completed_at: str | None = None
    estimated_completion: str | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will happen to this download."""
        return self.status in {"completed", "failed", "already_downloaded"}

    @property
    def progress(self) -> float | None:
        """How much is here, from 0 to 1; None where the server does not tell."""
        if self.status in {"completed", "already_downloaded"}:
            return 1.0
        if not self.total_size_bytes or self.downloaded_bytes is None:
            return None
        return min(self.downloaded_bytes / self.total_size_bytes, 1.0)


class Health(Struct, frozen=True, kw_only=True):
    """Whether a server answers, how fast (seconds), what it is, and what it has loaded.

    `product` is `"LM Studio"` (its app or llmster, which answer alike), `"lmdeck engine"`, `"llama.cpp"`, `"Ollama"`, `"vLLM"`,
    another name that the server gives, or `"an OpenAI-compatible server"`. `version` is None where the product does not tell
    it over HTTP, as LM Studio does not; `api == "v1"` means 0.4.0 or newer (LM Studio docs `api-changelog.md`).
    `error` says why `reachable` is False, or, where the server answers but refuses, why its models are not known.
    """

    reachable: bool
    latency: float | None = None
    product: str | None = None
    version: str | None = None
    api: ApiLevel | None = None
    models_loaded: list[str] = field(default_factory=list)
    error: LMStudioError | None = None
