"""Model lists in three shapes, with odd and missing fields, and the choice of a model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._responses.model_lists import MODEL_LIST_PATHS, choose_model, read_model_list
from lmdeck._responses.server_detection import recognize
from lmdeck.errors import MalformedStreamError, NoModelLoadedError
from lmdeck.model_info import ModelInfo, ModelInstance

V1 = {
    "type": "llm",
    "publisher": "qwen",
    "key": "qwen/qwen3-8b",
    "display_name": "Qwen3 8B",
    "architecture": "qwen3",
    "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
    "size_bytes": 5_027_783_488,
    "params_string": "8B",
    "loaded_instances": [
        {"id": "qwen/qwen3-8b:2", "config": {"context_length": 8192, "parallel": 4, "flash_attention": True}}
    ],
    "max_context_length": 40960,
    "format": "gguf",
    "capabilities": {"vision": False, "trained_for_tool_use": True},
}
V0 = {
    "id": "qwen2.5-7b-instruct",
    "object": "model",
    "type": "llm",
    "publisher": "lmstudio-community",
    "arch": "qwen2",
    "compatibility_type": "gguf",
    "quantization": "Q8_0",
    "state": "loaded",
    "max_context_length": 32768,
    "loaded_context_length": 4096,
    "capabilities": ["tool_use"],
}


def read(api: Any, *entries: Any) -> list[ModelInfo]:
    """Read a list of entries."""
    return read_model_list(api, {"models" if api == "v1" else "data": list(entries)})


def test_lm_studio_s_own_list() -> None:
    """`/api/v1/models`, with everything it says."""
    assert read("v1", V1) == [
        ModelInfo(
            key="qwen/qwen3-8b",
            type="llm",
            display_name="Qwen3 8B",
            publisher="qwen",
            architecture="qwen3",
            quantization="Q4_K_M",
            format="gguf",
            params="8B",
            size_bytes=5_027_783_488,
            max_context_length=40960,
            capabilities=["trained_for_tool_use"],
            instances=[
                ModelInstance(
                    id="qwen/qwen3-8b:2",
                    context_length=8192,
                    parallel=4,
                    config={"context_length": 8192, "parallel": 4, "flash_attention": True},
                )
            ],
        )
    ]


def test_lm_studio_s_older_list() -> None:
    """The list of `/api/v0/models` is read, too."""
    loaded, other = read("v0", V0, {**V0, "id": "nomic", "type": "embeddings", "state": "not-loaded"})
    assert loaded == ModelInfo(
        key="qwen2.5-7b-instruct",
        display_name="qwen2.5-7b-instruct",
        publisher="lmstudio-community",
        architecture="qwen2",
        quantization="Q8_0",
        format="gguf",
        max_context_length=32768,
        capabilities=["tool_use"],
        instances=[ModelInstance(id="qwen2.5-7b-instruct", context_length=4096)],
    )
    assert (other.type, other.loaded) == ("embedding", False)


def test_openai_s_list() -> None:
    """`/v1/models` knows ids only."""
    llm, embedding = read("openai", {"id": "a", "object": "model", "owned_by": "x"}, {"id": "text-embedding-nomic"})
    assert (llm, embedding.type) == (ModelInfo(key="a", display_name="a"), "embedding")


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"type": "vlm"}, "vlm"),
        ({"type": "llm", "capabilities": {"vision": True}}, "vlm"),
        ({"type": "embedding"}, "embedding"),
        ({"type": "embeddings"}, "embedding"),
        ({"type": "decision"}, "decision"),
        ({"type": "new", "capabilities": {"vision": True}}, "new"),
        ({"type": None}, "llm"),
        ({"type": ["llm"]}, "llm"),
        ({}, "llm"),
    ],
)
def test_the_type_of_a_model(entry: dict[str, Any], kind: str) -> None:
    """The server's own word stays; without one it is a model that answers chats."""
    assert read("v1", {"key": "a", **entry})[0].type == kind


@pytest.mark.parametrize("api", ["v1", "v0", "openai"])
@pytest.mark.parametrize("name", ["key", "id"])
def test_an_entry_may_name_its_key_either_way(api: str, name: str) -> None:
    """Nothing else is needed."""
    assert read(api, {name: "a"}) == [ModelInfo(key="a", display_name="a")]


@pytest.mark.parametrize("api", ["v1", "v0", "openai"])
@pytest.mark.parametrize("entry", [None, 5, "a", [], {}, {"key": ""}, {"id": None}])
def test_an_entry_without_a_key_is_passed_over(api: str, entry: object) -> None:
    """The others stay."""
    assert [model.key for model in read(api, entry, {"id": "a", "key": "a"})] == ["a"]


@pytest.mark.parametrize("api", ["v1", "v0", "openai"])
@pytest.mark.parametrize("body", [None, [], "x", 5, {}, {"models": None}, {"data": {}}, {"error": "x"}])
def test_what_is_no_list_is_reported(api: Any, body: object) -> None:
    """The error makes the client ask the next API."""
    with pytest.raises(MalformedStreamError, match="model list"):
        read_model_list(api, body)


odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just([])
    | st.just({})
    | st.just([None, 5, {"id": 5}])
)


@given(st.sampled_from(["v1", "v0", "openai"]), st.data())
def test_no_odd_field_loses_a_model(api: str, data: st.DataObject) -> None:
    """A field of the wrong type is left out."""
    entry = {**V1, **V0}
    for name in data.draw(st.lists(st.sampled_from([name for name in entry if name not in {"id", "key"}]), max_size=6)):
        entry[name] = data.draw(odd)
    (model,) = read(api, entry)
    assert model.key in {V1["key"], V0["id"]}
    assert model.size_bytes >= 0
    assert all(
        isinstance(text, str | None) for text in (model.publisher, model.architecture, model.quantization, model.format)
    )
    assert isinstance(choose_model([model]) if model.is_chat_model else "", str)
    assert recognize(api, {"data": [entry]}, {}).name in {None, "LM Studio"}


def test_numbers_are_counts_or_nothing() -> None:
    """Negative, infinite, boolean or huge ones say nothing."""
    for value in (-1, float("inf"), float("nan"), True, 1 << 70, "5"):
        assert read("v1", {"key": "a", "max_context_length": value})[0].max_context_length is None
    assert read("v1", {"key": "a", "max_context_length": 4096.0})[0].max_context_length == 4096


# --- the choice -----------------------------------------------------------------------------------------------------------

BIG, SMALL = ModelInfo(key="big", size_bytes=9), ModelInfo(key="small", size_bytes=1)
LOADED = ModelInfo(key="loaded", size_bytes=99, instances=[ModelInstance(id="loaded:2"), ModelInstance(id="loaded:3")])
EMBEDDING = ModelInfo(key="embed", type="embedding", size_bytes=0, instances=[ModelInstance(id="embed")])


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ([BIG, SMALL, LOADED], "loaded:2"),
        ([BIG, SMALL], "small"),
        ([EMBEDDING, BIG], "big"),
        ([ModelInfo(key="unknown"), BIG], "big"),
        ([ModelInfo(key="x"), ModelInfo(key="y")], "x"),
        ([ModelInfo(key="eye", type="vlm")], "eye"),
        ([ModelInfo(key="x", instances=[ModelInstance(id="")])], "x"),
    ],
)
def test_a_loaded_model_is_chosen_or_the_smallest(models: list[ModelInfo], chosen: str) -> None:
    """An embedding model never; an unknown size is not a small one."""
    assert choose_model(models) == chosen


@pytest.mark.parametrize("models", [[], [EMBEDDING]])
def test_without_a_chat_model_there_is_no_choice(models: list[ModelInfo]) -> None:
    """The hint says how to get one."""
    with pytest.raises(NoModelLoadedError) as caught:
        choose_model(models)
    assert "lms get" in caught.value.hint


def test_the_newest_api_is_asked_first() -> None:
    """The APIs are asked in the order of how much they report."""
    assert [path for _, path in MODEL_LIST_PATHS] == ["/api/v1/models", "/api/v0/models", "/v1/models"]


def test_the_reasoning_options_of_a_model_are_read() -> None:
    """The levels and the variants are read as LM Studio 0.4.25 lists them."""
    reasoning = {"allowed_options": ["off", "on"], "default": "on"}
    entry = {
        "key": "a/b",
        "capabilities": {"reasoning": reasoning},
        "variants": ["a/b@q4"],
        "selected_variant": "a/b@q4",
    }
    told, silent = read_model_list("v1", {"models": [{**entry, "description": "Big."}, {"key": "c"}]})
    assert told.reasoning is not None
    assert (told.reasoning.allowed_options, told.reasoning.default) == (["off", "on"], "on")
    assert (told.variants, told.selected_variant, told.description) == (["a/b@q4"], "a/b@q4", "Big.")
    assert "reasoning" in told.capabilities
    assert (silent.reasoning, silent.variants, silent.description) == (None, [], None)


@pytest.mark.parametrize(
    ("capability", "has_it"),
    [
        (True, True),
        (False, False),
        ("on", True),
        ("off", False),
        ({"allowed_options": ["off", "on"], "default": "on"}, True),
        ({"allowed_options": ["off"], "default": "off"}, False),
        ({"default": "on"}, True),
        ({}, False),
        (None, False),
    ],
)
def test_a_capability_may_be_told_by_its_options(capability: object, has_it: bool) -> None:
    """A capability that can only be off is none (onyx-dot-app/onyx#13817)."""
    [model] = read("v1", {"type": "llm", "key": "m", "capabilities": {"vision": capability}})
    assert (model.capabilities, model.type) == ((["vision"], "vlm") if has_it else ([], "llm"))


def test_what_llama_cpp_and_vllm_say_of_their_models_is_read() -> None:
    """They hold what they list, except a router's models that it has not loaded."""
    meta = {"n_ctx": 4096, "n_ctx_train": 8192, "n_params": 7_000_000_000, "size": 5, "ftype": "Q4_1"}
    body = {
        "data": [
            {"id": "a", "owned_by": "llamacpp", "meta": meta},
            {"id": "b", "owned_by": "llamacpp", "status": {"value": "unloaded"}},
            {"id": "c", "owned_by": "vllm", "max_model_len": 2048},
            {"id": "d", "owned_by": ["odd"], "meta": "odd", "status": 5},
        ]
    }
    models = read_model_list("openai", body)
    assert [model.loaded for model in models] == [True, False, True, False]
    held = [model.instances[0].context_length for model in models if model.loaded]
    assert held == [4096, 2048]
    assert (models[0].max_context_length, models[0].params, models[0].quantization) == (8192, "7B", "Q4_1")
