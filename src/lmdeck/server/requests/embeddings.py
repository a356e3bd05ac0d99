"""Requests of `/v1/embeddings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.errors import Refusal, invalid, no_models_loaded
from lmdeck.server.jobs import EmbeddingJob
from lmdeck.server.requests.body import choose_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lmdeck.server.jobs import ModelDescription

MAX_TEXTS = 2048


def embedding_job(body: Mapping[str, Any], models: Sequence[ModelDescription]) -> EmbeddingJob:
    """Validate an embeddings request; vectors are numbers unless `encoding_format` is base64.

    Raises:
        Refusal: The input is not text (arrays of token ids are refused), or the model is not an embedding model.
    """
    as_base64 = body.get("encoding_format") == "base64"
    value = body.get("input")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise invalid("'input' field must be a string or an array of strings")
    if len(texts) > MAX_TEXTS:
        raise invalid(f"'input' field must hold at most {MAX_TEXTS} strings")
    embedding = [model for model in models if model.type == "embeddings"]
    if not body.get("model"):
        if not embedding:
            raise no_models_loaded()
        return EmbeddingJob(model=embedding[0].key, texts=tuple(texts), as_base64=as_base64)
    key = choose_model(body["model"], models)
    if all(model.key != key for model in embedding):
        message = f'Failed to load model "{key}". Error: Model is not embedding.'
        raise Refusal(400, message, param="model", code="model_not_found")
    return EmbeddingJob(model=key, texts=tuple(texts), as_base64=as_base64)
