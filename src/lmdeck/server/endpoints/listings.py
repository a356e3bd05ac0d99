"""LM Studio's three model lists: OpenAI's, and those of its REST API v0 and v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck.server.jobs import Instance, ModelDescription


def openai_models(models: Sequence[ModelDescription]) -> dict[str, Any]:
    """Return the body of `GET /v1/models`.

    Without just-in-time loading, it lists only loaded models (LM Studio's docs, `headless`).
    """
    listed = [model for model in models if model.instances or model.on_demand]
    return {"data": [openai_model(model) for model in listed], "object": "list"}


def openai_model(model: ModelDescription) -> dict[str, Any]:
    """Return one entry of `GET /v1/models`."""
    return {"id": model.key, "object": "model", "owned_by": "organization_owner"}


def v0_models(models: Sequence[ModelDescription]) -> dict[str, Any]:
    """Return the body of `GET /api/v0/models` (LM Studio's docs, `2_rest/endpoints.mdx`)."""
    return {"data": [v0_model(model) for model in models], "object": "list"}


def v0_model(model: ModelDescription) -> dict[str, Any]:
    """Return one entry of `GET /api/v0/models`.

    It has `loaded_context_length` only if the model is loaded.
    """
    entry: dict[str, Any] = {
        "id": model.key,
        "object": "model",
        "type": model.type,
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": model.format,
        "quantization": model.quantization,
        "state": "not-loaded" if model.loaded_context_length is None else "loaded",
        "max_context_length": model.max_context_length,
    }
    if model.loaded_context_length is not None:
        entry["loaded_context_length"] = model.loaded_context_length
    return entry


def native_models(models: Sequence[ModelDescription]) -> dict[str, Any]:
    """Return the body of `GET /api/v1/models` (LM Studio's docs, `2_rest/list.md`)."""
    return {"models": [_native_model(model) for model in models]}


def _native_model(model: ModelDescription) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": {"embeddings": "embedding", "vlm": "llm"}.get(model.type, model.type),
        "publisher": model.publisher,
        "key": model.key,
        "display_name": model.display_name,
        "quantization": {"name": model.quantization, "bits_per_weight": model.bits_per_weight},
        "size_bytes": model.size_bytes,
        "params_string": model.parameters,
        "loaded_instances": [_instance(instance) for instance in model.instances],
        "max_context_length": model.max_context_length,
        "format": model.format,
    }
    if model.type != "embeddings":  # these are absent for embedding models
        entry["architecture"] = model.architecture
        entry["capabilities"] = {
            "vision": model.type == "vlm",
            "trained_for_tool_use": model.trained_for_tool_use,
            **({"decisions": True} if model.decides else {}),
        }
        entry["description"] = None
    return entry


def _instance(instance: Instance) -> dict[str, Any]:
    return {"id": instance.id, "config": {"context_length": instance.context_length, **instance.config}}
