"""Prompts for models that were trained to fill in the middle of a text.

Each family has its own tokens. `/v1/completions` does not apply a template, so the tokens are part of the prompt. OpenAI's
parameter `suffix` is not among those that LM Studio documents (`3_openai-compat/completions.md`).

Sources: the model cards and tokenizer files of each family.
"""

from __future__ import annotations

import re

from lmdeck.errors import ConfigurationError

FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"codellama|code-llama", ("<PRE> ", "prefix", " <SUF>", "suffix", " <MID>")),
    (r"codestral|devstral|mistral", ("[SUFFIX]", "suffix", "[PREFIX]", "prefix")),
    (r"deepseek", ("<｜fim▁begin｜>", "prefix", "<｜fim▁hole｜>", "suffix", "<｜fim▁end｜>")),
    (r"starcoder|granite|stable-?code|smollm", ("<fim_prefix>", "prefix", "<fim_suffix>", "suffix", "<fim_middle>")),
    (r"qwen|codegemma|seed-?coder", ("<|fim_prefix|>", "prefix", "<|fim_suffix|>", "suffix", "<|fim_middle|>")),
)
"""A pattern of model names, and the pieces of their prompt in order."""


def fill_in_the_middle(model: str, prefix: str, suffix: str) -> str:
    """Return the prompt with which a model writes the text between two texts.

    Raises:
        ConfigurationError: The model's family is unknown.
    """
    texts = {"prefix": prefix, "suffix": suffix}
    for pattern, pieces in FAMILIES:
        if re.search(pattern, model, re.IGNORECASE):
            return "".join(texts.get(piece, piece) for piece in pieces)
    raise ConfigurationError(
        f"lmdeck does not know the fill-in-the-middle tokens of the model {model!r}.",
        hint="Write the model's tokens into the prompt, and omit `suffix`.",
    )
