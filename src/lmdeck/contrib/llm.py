"""The plugin `llm-lmdeck` for Simon Willison's `llm`: LM Studio's models, repaired answers.

It is part of lmdeck (`llm install lmdeck`). Model ids are `lmdeck/` and the key in LM Studio; lmdeck's settings select the
server (`LMDECK_BASE_URL`, …). Tools, schemas, images, streams and logs are those of `llm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import llm
from llm.default_plugins.openai_models import AsyncChat, Chat
from llm.models import EmbeddingModel

from lmdeck import LMStudio, LMStudioError, ModelInfo
from lmdeck.contrib.openai import AsyncOpenAI, OpenAI

__all__ = ["register_embedding_models", "register_models"]

PREFIX = "lmdeck/"
LOOK_UP_SECONDS = 2.0  # short, because every `llm` command lists the models; without a server, there are none
CAPABILITIES = {"supports_schema": True, "supports_tools": True}


class LMDeckChat(Chat):
    """A chat model of LM Studio."""

    needs_key: Any = None

    def get_client(self, key: str | None, *, async_: bool = False) -> Any:  # as the parent's
        """Return OpenAI's client with lmdeck's transport."""
        return OpenAI()

    def __str__(self) -> str:
        return f"LM Studio: {self.model_id}"


class AsyncLMDeckChat(AsyncChat):
    """Async version of `LMDeckChat`."""

    needs_key: Any = None

    def get_client(self, key: str | None, *, async_: bool = True) -> Any:  # as the parent's
        """Return OpenAI's async client with lmdeck's transport."""
        return AsyncOpenAI()

    def __str__(self) -> str:
        return f"LM Studio: {self.model_id}"


class LMDeckEmbedding(EmbeddingModel):
    """An embedding model of LM Studio."""

    def __init__(self, model_id: str, key: str) -> None:
        self.model_id = model_id
        self._key = key

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        """Return a vector for each text."""
        with LMStudio() as client:
            yield from client.embed([str(item) for item in items], model=self._key).vectors


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register every chat model that LM Studio lists."""
    for model in _listed():
        if model.type in {"llm", "vlm"}:
            options = {"model_name": model.key, "vision": model.type == "vlm", **CAPABILITIES}
            name = f"{PREFIX}{model.key}"
            register(LMDeckChat(name, **options), AsyncLMDeckChat(name, **options))


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """Register every embedding model that LM Studio lists."""
    for model in _listed():
        if model.type == "embedding":
            register(LMDeckEmbedding(f"{PREFIX}{model.key}", model.key))


def _listed() -> list[ModelInfo]:
    limits: Any = {"connect_timeout": LOOK_UP_SECONDS, "first_token_timeout": LOOK_UP_SECONDS, "retry_attempts": 1}
    try:
        with LMStudio(**limits) as client:
            return client.models.list()
    except LMStudioError:
        return []
