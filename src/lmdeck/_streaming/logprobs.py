"""Read log probabilities of tokens, in the two forms that servers send.

`/v1/chat/completions` and `/v1/responses` send `content: [{"token", "logprob", "bytes", "top_logprobs"}]` (OpenAI's API
reference, "Chat completion object"), `/v1/completions` four lists side by side: `tokens`, `token_logprobs`, `top_logprobs`,
`text_offset`. An entry that cannot be read is left out, so that it cannot cost an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck.messages import TokenLogprob

LOGPROBS_MISSING = "Log probabilities were asked for, but the server sent none."


def read_logprobs(given: object) -> list[TokenLogprob]:
    """Return the tokens of either form; an empty list for anything else."""
    if isinstance(given, list):
        return [read for entry in given if (read := _entry(entry)) is not None]
    if not isinstance(given, Mapping):
        return []
    if isinstance(given.get("content"), list):
        return read_logprobs(given["content"])
    return _side_by_side(given)


def _entry(given: object) -> TokenLogprob | None:
    if not isinstance(given, Mapping):
        return None
    top = given.get("top_logprobs")
    return _token(given.get("token"), given.get("logprob"), given.get("bytes"), read_logprobs(top))


def _side_by_side(given: Mapping[str, Any]) -> list[TokenLogprob]:
    tokens, values, likely = (_list(given.get(name)) for name in ("tokens", "token_logprobs", "top_logprobs"))
    read = []
    for place, (token, value) in enumerate(zip(tokens, values, strict=False)):
        others = likely[place] if place < len(likely) else None
        top = [_token(name, each) for name, each in others.items()] if isinstance(others, Mapping) else []
        read.append(_token(token, value, None, [each for each in top if each is not None]))
    return [each for each in read if each is not None]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _token(
    token: object, logprob: object, spelled: object = None, top: list[TokenLogprob] | None = None
) -> TokenLogprob | None:
    """Return a token, None if it cannot be read.
    The first token of an echoed prompt has no probability.
    """
    if not isinstance(token, str) or not isinstance(logprob, (int, float)) or isinstance(logprob, bool):
        return None
    return TokenLogprob(token=token, logprob=float(logprob), bytes=_bytes(spelled), top_logprobs=top or [])


def _bytes(given: object) -> bytes | None:
    """Return a token's bytes, which may be part of a character only."""
    try:
        return bytes(given) if isinstance(given, list) else None
    except (ValueError, TypeError):
        return None
