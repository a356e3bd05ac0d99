"""Models, downloads and the server's health."""

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
    "ReasoningLevel",
    "ReasoningOptions",
]

ReasoningLevel = Literal["off", "on", "low", "medium", "high"]
ApiLevel = Literal["v1", "v0", "openai"]
DownloadStatus = Literal["downloading", "paused", "completed", "failed", "already_downloaded"]


class ModelInstance(Struct, frozen=True, kw_only=True):
    """A loaded instance of a model, with its `id` in requests.

    `parallel` is how many answers it generates at once.
    """

    id: str
    context_length: int | None = None
    parallel: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


class ReasoningOptions(Struct, frozen=True, kw_only=True):
    """The reasoning settings of a model: the values that a request may name, and the default."""

    allowed_options: list[str] = field(default_factory=list)
    default: str | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model on the server's disk. Unknown values are None, empty, or 0 for `size_bytes`.

    `type` is `"llm"`, `"vlm"`, `"embedding"`, `"decision"`, or the server's own name for another type.
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
        """Whether the model is in memory."""
        return bool(self.instances)

    @property
    def is_chat_model(self) -> bool:
        """Whether the model can answer chats, that is, has the type `"llm"` or `"vlm"`."""
        return self.type in {"llm", "vlm"}

    @property
    def decides(self) -> bool:
        """Whether the model supports `lm.decide`: a decision model, or one with that capability."""
        return self.type == "decision" or "decisions" in self.capabilities


class LoadedModel(Struct, frozen=True, kw_only=True):
    """The result of loading a model: `instance_id` is its name in requests and for `unload`.

    `load_time` is in seconds, None if the model was loaded before (`already_loaded`). `config` is the load configuration
    that the server reported.
    """

    instance_id: str
    type: str = "llm"
    load_time: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    already_loaded: bool = False


class DownloadJob(Struct, frozen=True, kw_only=True):
    """The last reported state of a download: sizes in bytes, times in ISO 8601.

    `job_id` is None for a model that was downloaded before. Unknown values are None.
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
        """Whether the download has ended, successfully or not."""
        return self.status in {"completed", "failed", "already_downloaded"}

    @property
    def progress(self) -> float | None:
        """The downloaded fraction, from 0 to 1; None if the server does not report it."""
        if self.status in {"completed", "already_downloaded"}:
            return 1.0
        if not self.total_size_bytes or self.downloaded_bytes is None:
            return None
        return min(self.downloaded_bytes / self.total_size_bytes, 1.0)


class Health(Struct, frozen=True, kw_only=True):
    """The health of a server: whether it answers, latency (seconds), product and loaded models.

    `product` is `"LM Studio"`, `"llmster"` (its daemon), `"Bionic"`, `"lmdeck engine"`, `"llama.cpp"`, `"Ollama"`, `"vLLM"`,
    another name that the server reports, or `"an OpenAI-compatible server"`. `version` is None if the product does not report
    it. LM Studio's programs report both at `/lms-status`, some on their own machine only, and are called LM Studio where they
    do not; `api == "v1"` means 0.4.0 or newer (LM Studio docs `api-changelog.md`).
    `error` says why `reachable` is False or, if the server answers but refuses, why its models are unknown.
    """

    reachable: bool
    latency: float | None = None
    product: str | None = None
    version: str | None = None
    api: ApiLevel | None = None
    models_loaded: list[str] = field(default_factory=list)
    error: LMStudioError | None = None
