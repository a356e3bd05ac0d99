"""Hints for a server that is not LM Studio."""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._responses.server_detection import LM_STUDIO
from lmdeck.errors import (
    AuthenticationError,
    ContextLengthError,
    EndpointNotFoundError,
    LMStudioError,
    MalformedStreamError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerUnreachableError,
    TemplateError,
    TransportError,
)

# The hints of error classes if a product other than LM Studio answers.
PRODUCT_HINTS: dict[type[LMStudioError], str] = {
    ServerUnreachableError: "Start {product}, or set LMDECK_HOST and LMDECK_PORT to its address.",
    TransportError: "Check that {product} is running and reachable.",
    AuthenticationError: "Set LM_API_TOKEN, or pass `api_token=`, to a key that {product} accepts.",
    EndpointNotFoundError: "Use lm.chat(), or update {product}: it does not have this endpoint.",
    ContextLengthError: (
        "Shorten the messages, or give the model a larger context (llama.cpp `--ctx-size`, vLLM `--max-model-len`, Ollama "
        "`num_ctx`)."
    ),
    ModelNotFoundError: "Choose a model from `lmdeck models`.",
    NoModelLoadedError: "Load a model in {product}, or name one that it has: `lmdeck models` lists them.",
    ModelLoadError: "Free memory, choose a smaller model or a smaller context length.",
    TemplateError: "Update the model, or start {product} with another chat template.",
    MalformedStreamError: "Check that `base_url` points to {product}, not to a proxy's login page.",
}
# What only LM Studio has, in parentheses in a hint.
_LMS_COMMAND = late_pattern(r" \([^()]*`lms [^()]*\)")


def adapt_hint(error: LMStudioError, product: str | None) -> None:
    """Adapt the hint of an error to the product that answered, if it is known and not LM Studio."""
    if product is None or product == LM_STUDIO:
        return
    name = "the server" if product.startswith("an ") else product
    hint = _LMS_COMMAND.sub("", error.hint)
    of_class = PRODUCT_HINTS.get(type(error))
    if of_class and (error.hint == error.default_hint or "`lms" in hint):
        error.hint = of_class.format(product=name)
    else:
        error.hint = hint.replace("LM Studio's", f"{name}'s").replace(LM_STUDIO, name)
