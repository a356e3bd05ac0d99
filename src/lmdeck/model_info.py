"""Models and the server's health, as the user sees them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from lmdeck.errors import LMStudioError

__all__ = ["ApiLevel", "Health", "ModelInfo", "ModelInstance", "ModelType"]

ModelType = Literal["llm", "vlm", "embedding"]
ApiLevel = Literal["v1", "v0", "openai"]


class ModelInstance(Struct, frozen=True, kw_only=True):
    """A model in memory: `id` is what requests name, `parallel` how many answers it writes at once."""

    id: str
    context_length: int | None = None
    parallel: int | None = None
    config: dict[str, Any] = field(default_factory=dict)


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A model on the server's disk. What the server did not say is None, empty, or 0 for `size_bytes`."""

    key: str
    type: ModelType = "llm"
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

    @property
    def loaded(self) -> bool:
        """Tell whether the model is in memory."""
        return bool(self.instances)

    @property
    def is_chat_model(self) -> bool:
        """Tell whether the model answers chats: it is no embedding model."""
        return self.type != "embedding"


class Health(Struct, frozen=True, kw_only=True):
    """Whether a server answers, how fast (seconds), what it is, and what it has loaded.

    `error` says why `reachable` is False, or, where the server answers but refuses, why its models are not known.
    """

    reachable: bool
    latency: float | None = None
    product: str | None = None
    version: str | None = None
    api: ApiLevel | None = None
    models_loaded: list[str] = field(default_factory=list)
    error: LMStudioError | None = None
