"""The reasoning level of a request, in the form of each endpoint.

`/api/v1/chat` accepts the level itself (LM Studio docs `2_rest/chat.md`); `/v1/chat/completions` and `/v1/responses` accept an
effort, which is `none` for off and `medium` for on (lmstudio-bug-tracker #2057); `/v1/messages` accepts Anthropic's
`thinking`. `capabilities.reasoning` in LM Studio's list of models has the levels that a model supports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from lmdeck.errors import ConfigurationError
from lmdeck.model_info import ReasoningLevel, ReasoningOptions

LEVELS: tuple[str, ...] = get_args(ReasoningLevel)
THINKING_TOKENS = {"low": 1024, "medium": 4096, "high": 16384}
MIN_THINKING = 1024  # Anthropic's minimum of `budget_tokens`


def check_level(level: object) -> None:
    """Check a reasoning level.

    Raises:
        ConfigurationError: It is not one of the levels.
    """
    if level not in LEVELS:
        raise ConfigurationError(f"{level!r} is not a reasoning level.", hint=f"Use one of {', '.join(LEVELS)}.")


def fitting_level(level: str, options: ReasoningOptions | None, model: str) -> str:
    """Return the level for a model; `"on"` becomes a supported level.

    Raises:
        ConfigurationError: According to the server's list, the model does not support the level.
    """
    allowed = options.allowed_options if options else []
    if options is None or not allowed or level in allowed:
        return level
    default = options.default
    levels = [each for each in allowed if each != "off"]
    if level == "on" and levels:
        return default if default in levels else levels[len(levels) // 2]
    raise ConfigurationError(
        f"The model {model} does not support the reasoning level {level!r}, only {', '.join(allowed)}.",
        hint="Choose one of these. If the server's list is wrong, `with_options(reasoning_effort=…)` is sent unchanged.",
    )


def effort(level: str) -> str:
    """Return a level as an effort of OpenAI's endpoints."""
    return {"off": "none", "on": "medium"}.get(level, level)


def chat_reasoning(level: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of `/v1/chat/completions`."""
    return {"reasoning_effort": effort(level)}


def responses_reasoning(level: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of `/v1/responses`."""
    return {"reasoning": {"effort": effort(level)}}


def native_reasoning(level: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of `/api/v1/chat`."""
    return {"reasoning": level}


def anthropic_reasoning(level: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of `/v1/messages`, with a budget smaller than `max_tokens`."""
    if level == "off":
        return {"thinking": {"type": "disabled"}}
    budget = min(THINKING_TOKENS.get(level, THINKING_TOKENS["medium"]), int(body.get("max_tokens") or 0) - 1)
    return {"thinking": {"type": "enabled", "budget_tokens": max(budget, MIN_THINKING)}}
