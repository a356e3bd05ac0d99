"""`/v1/completions`: text as chunks, or as the choice of a whole body."""

from __future__ import annotations

from typing import Any


def text_choice(text: str, reason: str | None = None) -> dict[str, Any]:
    """Return the choice of a chunk or of a whole body."""
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
