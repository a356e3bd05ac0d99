"""The three formats of model lists, and the choice of a default model.

`/api/v1/models` is documented in LM Studio's `2_rest/list.md`, `/api/v0/models` in `2_rest/endpoints.mdx`; `/v1/models` is
OpenAI's and has only ids, to which llama.cpp and vLLM add details (llama.cpp's `tools/server/README.md`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from lmdeck.errors import MalformedStreamError, NoModelLoadedError
from lmdeck.model_info import ApiLevel, ModelInfo, ModelInstance, ReasoningOptions

MODEL_LIST_PATHS: tuple[tuple[ApiLevel, str], ...] = (
    ("v1", "/api/v1/models"),
    ("v0", "/api/v0/models"),
    ("openai", "/v1/models"),
)


SERVING_OWNERS = frozenset({"llamacpp", "vllm", "sglang"})  # the `owned_by` of servers that list only loaded models


def read_model_list(api: ApiLevel, body: object) -> list[ModelInfo]:
    """Return the models of a list in the format of an API.

    Raises:
        MalformedStreamError: The body has no list in the documented field.
    """
    name = "models" if api == "v1" else "data"
    entries = body.get(name) if isinstance(body, Mapping) else None
    if not isinstance(entries, list):
        raise MalformedStreamError(f"The model list has no {name!r}.")
    read = _READERS[api]
    return [read(entry) for entry in entries if isinstance(entry, Mapping) and (entry.get("key") or entry.get("id"))]


def choose_model(models: Iterable[ModelInfo]) -> str:
    """Return the model for a request that does not name one: a loaded one, or the smallest.

    Raises:
        NoModelLoadedError: There is no chat model.
    """
    candidates = [model for model in models if model.is_chat_model]
    for model in candidates:
        if model.instances:
            return model.instances[0].id or model.key
    if not candidates:
        raise NoModelLoadedError(
            "The server has no chat model.",
            hint="Download one, for example `lms get qwen2.5-0.5b`.",
        )
    return min(candidates, key=lambda model: model.size_bytes or float("inf")).key


def _from_v1(entry: Mapping[str, Any]) -> ModelInfo:
    capabilities = entry.get("capabilities")
    named = capabilities if isinstance(capabilities, Mapping) else {}
    quantization = entry.get("quantization")
    instances = entry.get("loaded_instances")
    return ModelInfo(
        key=str(entry.get("key") or entry.get("id")),
        type=_type(entry.get("type"), vision=_is_on(named.get("vision"))),
        display_name=str(entry.get("display_name") or entry.get("key") or entry.get("id")),
        publisher=_text(entry.get("publisher")),
        architecture=_text(entry.get("architecture")),
        quantization=_text(quantization.get("name") if isinstance(quantization, Mapping) else quantization),
        format=_text(entry.get("format")),
        params=_text(entry.get("params_string")),
        size_bytes=_count(entry.get("size_bytes")) or 0,
        max_context_length=_count(entry.get("max_context_length")),
        capabilities=[name for name, value in named.items() if _is_on(value)],
        reasoning=_reasoning(named.get("reasoning")),
        variants=_texts(entry.get("variants")),
        selected_variant=_text(entry.get("selected_variant")),
        description=_text(entry.get("description")),
        instances=[
            _instance(instance)
            for instance in (instances if isinstance(instances, list) else ())
            if isinstance(instance, Mapping)
        ],
    )


def _is_on(capability: object) -> bool:
    """Whether a model has a capability.

    Servers report it as a boolean, or as a list of options (onyx-dot-app/onyx#13817).
    """
    if isinstance(capability, Mapping) and (options := _texts(capability.get("allowed_options"))):
        return options != ["off"]
    return bool(capability) and capability != "off"


def _reasoning(value: object) -> ReasoningOptions | None:
    """Return the reasoning settings of a model, which LM Studio has reported since 0.4.25."""
    if not isinstance(value, Mapping):
        return None
    return ReasoningOptions(allowed_options=_texts(value.get("allowed_options")), default=_text(value.get("default")))


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _instance(instance: Mapping[str, Any]) -> ModelInstance:
    config = instance.get("config")
    settings = dict(config) if isinstance(config, Mapping) else {}
    return ModelInstance(
        id=str(instance.get("id") or instance.get("identifier") or ""),
        context_length=_count(settings.get("context_length")),
        parallel=_count(settings.get("parallel")),
        config=settings,
    )


def _from_v0(entry: Mapping[str, Any]) -> ModelInfo:
    key = str(entry.get("id") or entry.get("key"))
    loaded = [ModelInstance(id=key, context_length=_count(entry.get("loaded_context_length")))]
    capabilities = entry.get("capabilities")
    return ModelInfo(
        key=key,
        type=_type(entry.get("type")),
        display_name=key,
        publisher=_text(entry.get("publisher")),
        architecture=_text(entry.get("arch")),
        quantization=_text(entry.get("quantization")),
        format=_text(entry.get("compatibility_type")),
        size_bytes=_count(entry.get("size_bytes")) or 0,
        max_context_length=_count(entry.get("max_context_length")),
        capabilities=[str(name) for name in capabilities] if isinstance(capabilities, list) else [],
        instances=loaded if entry.get("state") == "loaded" else [],
    )


def _from_openai(entry: Mapping[str, Any]) -> ModelInfo:
    """Return the model of an entry with little more than an id.

    Embedding models are recognized by name.

    llama.cpp describes its model in `meta`, and as a router reports in `status` whether a model is loaded. llama.cpp and vLLM
    list only models that are in memory.
    """
    key = str(entry.get("id") or entry.get("key"))
    meta = _object(entry.get("meta"))
    status = _object(entry.get("status")).get("value")
    lengths = (meta.get("n_ctx"), entry.get("max_model_len"), entry.get("context_length"))
    context_length = next((length for length in map(_count, lengths) if length), None)
    is_loaded = status == "loaded" if status else str(entry.get("owned_by")).lower() in SERVING_OWNERS
    instances = [ModelInstance(id=key, context_length=context_length)] if is_loaded else []
    return ModelInfo(
        key=key,
        type="embedding" if "embed" in key.lower() else "llm",
        display_name=key,
        quantization=_text(meta.get("ftype")),
        format="gguf" if meta else None,
        params=_text(_params(meta.get("n_params"))),
        size_bytes=_count(meta.get("size")) or 0,
        max_context_length=_count(meta.get("n_ctx_train")) or context_length,
        instances=instances,
    )


def _params(count: object) -> str | None:
    """Return a number of parameters as in model names: 0.1B, 7B."""
    known = _count(count)
    return f"{known / 1e9:.1f}".removesuffix(".0") + "B" if known else None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


_READERS = {"v1": _from_v1, "v0": _from_v0, "openai": _from_openai}


def _type(value: object, *, vision: bool = False) -> str:
    """Return the type of a model; an unknown type is returned unchanged."""
    if value == "embeddings":
        return "embedding"
    kind = _text(value) or "llm"
    return "vlm" if vision and kind == "llm" else kind


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return (
        int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None
    )


assert {api for api, _ in MODEL_LIST_PATHS} == set(get_args(ApiLevel)) == _READERS.keys()  # each API has its reader
