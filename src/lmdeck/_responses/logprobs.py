"""Read log probabilities of tokens, in the two forms that servers send.

`/v1/chat/completions` and `/v1/responses` send `content: [{"token", "logprob", "bytes", "top_logprobs"}]` (OpenAI's API
reference, "Chat completion object"), `/v1/completions` four lists side by side: `tokens`, `token_logprobs`, `top_logprobs`,
`text_offset`. An entry that cannot be read is left out, so that the answer is not lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck.messages import TokenLogprob

LOGPROBS_MISSING = "Log probabilities were requested, but the server did not send any."


def read_logprobs(value: object) -> list[TokenLogprob]:
    """Return the tokens of either form; an empty list for anything else."""
    if isinstance(value, list):
        return [read for entry in value if (read := _entry(entry)) is not None]
    if not isinstance(value, Mapping):
        return []
    if isinstance(value.get("content"), list):
        return read_logprobs(value["content"])
    return _side_by_side(value)


def _entry(entry: object) -> TokenLogprob | None:
    if not isinstance(entry, Mapping):
        return None
    top = entry.get("top_logprobs")
    return _token(entry.get("token"), entry.get("logprob"), entry.get("bytes"), read_logprobs(top))


def _side_by_side(lists: Mapping[str, Any]) -> list[TokenLogprob]:
    tokens, values, likely = (_list(lists.get(name)) for name in ("tokens", "token_logprobs", "top_logprobs"))
    read = []
    for index, (token, value) in enumerate(zip(tokens, values, strict=False)):
        others = likely[index] if index < len(likely) else None
        top = [_token(name, each) for name, each in others.items()] if isinstance(others, Mapping) else []
        read.append(_token(token, value, None, [each for each in top if each is not None]))
    return [each for each in read if each is not None]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _token(
    token: object, logprob: object, spelled: object = None, top: list[TokenLogprob] | None = None
) -> TokenLogprob | None:
    """Return a token, or None if it cannot be read.

    The first token of an echoed prompt has no probability.
    """
    if not isinstance(token, str) or not isinstance(logprob, (int, float)) or isinstance(logprob, bool):
        return None
    return TokenLogprob(token=token, logprob=float(logprob), bytes=_bytes(spelled), top_logprobs=top or [])


def _bytes(value: object) -> bytes | None:
    """Return a token's bytes, which may be only part of a character."""
    try:
        return bytes(value) if isinstance(value, list) else None
    except (ValueError, TypeError):
        return None
