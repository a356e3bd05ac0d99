"""Shared by all formats: ids, the end marker, named events, finish reasons and token counts."""

from __future__ import annotations

import secrets
import string
from itertools import cycle, islice
from typing import TYPE_CHECKING

import msgspec

from lmdeck._encoders.event_stream import encode_event

if TYPE_CHECKING:
    from lmdeck._encoders.backend_events import Finished, StopReason

DONE = encode_event(b"[DONE]")
_ID_LETTERS = bytes(islice(cycle(string.ascii_lowercase.encode() + string.digits.encode()), 256))
"""The letter or digit that stands for each byte."""
_FINISH_REASONS: dict[StopReason, str] = {
    "eosFound": "stop",
    "stopStringFound": "stop",
    "toolCalls": "tool_calls",
    "maxPredictedTokensReached": "length",
    "contextLengthReached": "length",
}


def answer_id(prefix: str) -> str:
    """Return an id in LM Studio's format: the prefix, a dash, letters and digits."""
    return f"{prefix}-{secrets.token_bytes(22).translate(_ID_LETTERS).decode()}"


def item_id(prefix: str) -> str:
    """Return an id of a response or an item: the prefix, an underscore, 48 hexadecimal digits."""
    return f"{prefix}_{secrets.token_hex(24)}"


def data_event(value: object) -> bytes:
    """Return a value as a server-sent event without a name."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def named_event(name: str, value: object) -> bytes:
    """Return a value as a server-sent event with a name."""
    return encode_event(msgspec.json.encode(value), name)


def finish_reason(reason: StopReason) -> str:
    """Return OpenAI's finish reason for a stop reason of LM Studio."""
    return _FINISH_REASONS[reason]


def usage(end: Finished) -> dict[str, int]:
    """Return the token counts of an answer in OpenAI's format."""
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }
