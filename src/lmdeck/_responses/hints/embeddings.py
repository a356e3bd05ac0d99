"""Hints about embeddings: the kind of model, and the size of texts and batches."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern

EMBEDDING_MODEL = (
    "Load a model that `lmdeck models` shows as `embedding`: one that is shown as `llm` is refused (bug tracker #1908)."
)

REFUSED = (
    (
        AnyPattern(r"--embeddings?\b", r"pooling type"),
        "Start the server with `--embeddings` and an embedding model, or use another server.",
    ),
    (
        AnyPattern(
            r"not support (chat|generate|generation|completions?|logits)\b",
            r"\bis not an? (llm|chat|generative)\b",
            r"\bembedding\b.{0,40}\b(for|as an?) (chat|completion|generation|llm)",
        ),
        "Choose a chat model: `lmdeck models` shows each model's type.",
    ),
    (
        AnyPattern(r"not (an? )?embedding", r"not support embeddings?"),
        "Choose an embedding model: `lmdeck models` shows each model's type.",
    ),
    (
        AnyPattern(r"too large to process.{0,80}batch size"),
        "Embed shorter texts, or start the server with a larger `--ubatch-size`, as large as its context.",
    ),
    (
        AnyPattern(r"\bbatch size \d+ > ", r"\bmaximum allowed batch size\b"),
        "Send fewer texts at once, with a smaller `batch_size` of `lm.embed`, or start the server with a larger batch.",
    ),
)
TOKENS = (AnyPattern(r"'?input'? field must be a string"), "Embed texts, not tokens: a text or a list of texts.")
