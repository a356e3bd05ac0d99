"""The sampling parameters of a request, checked for type and range."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lmdeck.server.errors import invalid
from lmdeck.server.jobs import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STOP_STRINGS = 64
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
"""The names of the limit in each API.

In order: OpenAI's chats, its responses and LM Studio's API, Anthropic's messages.
"""


def sampling(body: Mapping[str, Any]) -> Sampling:
    """Return the sampling parameters of a request.

    Raises:
        Refusal: A parameter has the wrong type or is out of range.
    """
    limit_name = next((name for name in _LIMITS if body.get(name) is not None), "max_tokens")
    limit = integer(limit_name, body.get(limit_name))
    return Sampling(
        max_tokens=None if limit is None or limit < 0 else limit,  # LM Studio: -1 means no limit
        temperature=_number("temperature", body.get("temperature"), 0, 100),
        top_p=_number("top_p", body.get("top_p"), 0, 1),
        top_k=integer("top_k", body.get("top_k")),
        min_p=_number("min_p", body.get("min_p"), 0, 1),
        repeat_penalty=_number("repeat_penalty", body.get("repeat_penalty"), 0, 100),
        presence_penalty=_number("presence_penalty", body.get("presence_penalty"), -2, 2),
        frequency_penalty=_number("frequency_penalty", body.get("frequency_penalty"), -2, 2),
        logit_bias=_logit_bias(body.get("logit_bias")),
        seed=integer("seed", body.get("seed")),
        stop=_stop(body.get("stop", body.get("stop_sequences"))),
    )


def _number(name: str, value: object, lowest: float, highest: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid(f"'{name}' field must be a number")
    if not lowest <= value <= highest:
        raise invalid(f"'{name}' field must be between {lowest} and {highest}")
    return float(value)


def integer(name: str, value: object) -> int | None:
    """Return an integer; a float with an integral value counts as one.

    Raises:
        Refusal: The value is not an integer.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63):
        return value
    raise invalid(f"'{name}' field must be an integer")


def _logit_bias(bias: object) -> dict[int, float] | None:
    if bias is None:
        return None
    if not isinstance(bias, dict) or not all(key.isdecimal() and len(key) < 10 for key in bias):
        raise invalid("'logit_bias' field must be an object of token ids and numbers")
    numbers = {int(key): _number(f"logit_bias.{key}", value, -100, 100) for key, value in bias.items()}
    return {token: number for token, number in numbers.items() if number is not None}


def _stop(stop: object) -> tuple[str, ...]:
    texts = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise invalid("'stop' field must be a string or an array of strings")
    if len(texts) > MAX_STOP_STRINGS:
        raise invalid(f"'stop' field must hold at most {MAX_STOP_STRINGS} strings")
    return tuple(text for text in texts if text)
