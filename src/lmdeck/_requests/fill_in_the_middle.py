"""Prompts for models that were trained to fill in the middle of a text.

Each family has its own marks.

Sources: the model cards and tokenizer files of each family. `/v1/completions` applies no template, so the marks are part of the
prompt; OpenAI's own `suffix` is not among the parameters that LM Studio documents (`3_openai-compat/completions.md`).
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
"""What a model's name has, and the pieces of its prompt in order."""


def fill_in_the_middle(model: str, prefix: str, suffix: str) -> str:
    """Return the prompt with which a model writes what stands between two texts.

    Raises:
        ConfigurationError: The model's family is not known.
    """
    texts = {"prefix": prefix, "suffix": suffix}
    for pattern, pieces in FAMILIES:
        if re.search(pattern, model, re.IGNORECASE):
            return "".join(texts.get(piece, piece) for piece in pieces)
    raise ConfigurationError(
        f"lmdeck does not know the marks with which the model {model!r} fills in the middle of a text.",
        hint="Write the model's own marks into the prompt, and leave `suffix` out.",
    )
