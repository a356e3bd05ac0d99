"""The token counts in the message of an overflow: those of the prompt and of the context."""

from __future__ import annotations

import re

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_bodies import RETURNED, ErrorInfo

__all__ = ["overflow_counts"]

# A number and what it counts; the patterns are in the order of their reliability.
NUMBER = r"(?P<count>\d{1,3}(?:,\d{3}){1,3}|\d{1,12})(?!\.?\d)"
CONTEXT = (
    r"context(?: (?:size|length|window|limit))?|n_ctx|max_(?:seq|model)_len\w*|max(?:imum)?(?: \w+){0,4}|batch size"
)
LIMIT = r"limit|only|supports|available|allowed|less than|at most|up to"
PROMPT = r"prompt|inputs?|messages|conversation|history|request(?:ed)?|passed|asked for|given|keep the first|n_keep|token count"
CONTEXT_LENGTHS = [
    AnyPattern(rf"\bexceed\w*(?: [a-z]\S*){{0,5}} ?\(?{NUMBER}"),
    AnyPattern(rf"(?:>=?|<=)\s*(?:n_ctx \()?{NUMBER}"),
    AnyPattern(rf"\b(?:{CONTEXT}|{LIMIT})\b:?[^\d\n.:]{{0,24}}{NUMBER}"),
    AnyPattern(rf"\b{NUMBER}(?:[- ]tokens?)?[- ](?:maximum|context|limit)\b"),
]
PROMPT_LENGTHS = [
    AnyPattern(rf"\b{NUMBER} (?:tokens )?(?:in|from|of) the (?:input|messages|prompt)\b"),
    AnyPattern(rf"\b{NUMBER} [`']?(?:inputs?|prompt)[`']? tokens\b"),
    AnyPattern(rf"\b(?:{PROMPT})\b[^\d\n.]{{0,30}}{NUMBER}"),
    AnyPattern(rf"\b{NUMBER} (?:tokens )?(?:\+ \d+ )?>"),
]


def overflow_counts(info: ErrorInfo) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and context that fields or message report."""
    message = RETURNED.sub("", info.message)
    limit = _count(CONTEXT_LENGTHS, message)
    rest = message[: limit.start()] + message[limit.end() :] if limit else message
    prompt = _count(PROMPT_LENGTHS, rest) or _count(PROMPT_LENGTHS, message)
    tokens, length = info.prompt_tokens or _value(prompt), info.context_length or _value(limit)
    return (None if tokens == length else tokens), length


def _count(patterns: list[AnyPattern], message: str) -> re.Match[str] | None:
    return next((match for pattern in patterns if (match := pattern.search(message))), None)


def _value(count: re.Match[str] | None) -> int | None:
    return int(count["count"].replace(",", "")) if count else None
