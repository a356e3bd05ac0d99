"""Estimates of tokens: the cost of a request before it is answered, and `count_tokens`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck._requests.token_estimates import BYTES_PER_TOKEN, TOKENS_PER_IMAGE, TokenEstimator

__all__ = ["cost_of", "count_tokens"]

USUAL_ANSWER = 512
SHORT_BODY = 1 << 16
_LONGEST = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_PROMPT = ("messages", "input", "prompt", "system", "instructions", "tools")
DEEPEST = 12


def cost_of(fields: Mapping[str, Any], size: int) -> tuple[int, int]:
    """Return the estimated tokens of a request's prompt and of its longest answer.

    `size` is its length in bytes.
    """
    longest = next(
        (value for name in _LONGEST if isinstance(value := fields.get(name), int) and value > 0), USUAL_ANSWER
    )
    if size <= SHORT_BODY:  # too short for an image to count
        return round(size / BYTES_PER_TOKEN), longest
    characters, images = _measured([fields.get(name) for name in _PROMPT], DEEPEST)
    return round(characters / BYTES_PER_TOKEN) + images * TOKENS_PER_IMAGE, longest


def _measured(value: object, depth: int) -> tuple[int, int]:
    """Return the number of characters of text in a value, and its number of base64 images."""
    if isinstance(value, str):
        return (0, 1) if value.startswith("data:image/") else (len(value), 0)
    if depth == 0:
        return 0, 0
    if isinstance(value, Mapping):
        if value.get("type") == "base64":  # Anthropic's source of an image
            return 0, 1
        parts = [_measured(each, depth - 1) for each in value.values()]
    elif isinstance(value, list):
        parts = [_measured(each, depth - 1) for each in value]
    else:
        return 0, 0
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def count_tokens(estimator: TokenEstimator, fields: Mapping[str, Any], size: int) -> int:
    """Return the estimated number of prompt tokens, calibrated by the model's earlier answers."""
    prompt, _ = cost_of(fields, size)
    return estimator.estimate_from(str(fields.get("model") or ""), max(prompt, 1)).tokens
