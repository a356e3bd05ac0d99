"""A reply as database rows, with values that every database accepts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from lmdeck._client.paused_run import PausedRun
from lmdeck._text import storable_json, storable_text
from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.stored_messages import ending_of, new_rounds

NAME_LENGTH = 200
REASON_LENGTH = 40
LARGEST_COUNT = 2**31 - 1


class RoundRows(Struct, frozen=True, kw_only=True):
    """The fields of one round: its message, its tool calls, and its usage if reported."""

    message: dict[str, Any]
    tool_calls: list[dict[str, Any]]
    usage: dict[str, Any] | None


def rows_of(outcome: Reply | PausedRun, resumed: PausedRun | None = None) -> Iterator[RoundRows]:
    """Yield the rows of each round of a reply; rounds without text and calls are omitted.

    Of a `resumed` run, the rounds that were stored when it was paused are omitted, too.
    """
    for one in new_rounds(outcome, resumed):
        results = {result.call.id: result for result in one.results}
        yield RoundRows(
            message=_message_fields(one.reply),
            tool_calls=[_call_fields(call, results.get(call.id)) for call in one.reply.tool_calls],
            usage=_usage_fields(one.reply),
        )


def _message_fields(reply: Reply) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": storable_text(reply.content),
        "reasoning": storable_text(reply.reasoning),
        "model": _name(reply.model),
        "finish_reason": storable_text(reply.finish_reason)[:REASON_LENGTH],
        "ended": ending_of(reply) or "",
    }


def _call_fields(call: ToolCall, result: ToolResult | None) -> dict[str, Any]:
    return {
        "call_id": storable_text(call.id),
        "name": _name(call.name),
        "arguments": storable_json(call.arguments),
        "result": None if result is None else storable_text(result.content),
        "failed": result is not None and result.error is not None,
        "seconds": None if result is None else _finite(result.seconds),
    }


def _usage_fields(reply: Reply) -> dict[str, Any] | None:
    if reply.usage is None:
        return None
    return {
        "model": _name(reply.model),
        "prompt_tokens": _count(reply.usage.prompt_tokens),
        "completion_tokens": _count(reply.usage.completion_tokens),
        "time_to_first_token": _finite(reply.stats.time_to_first_token),
        "tokens_per_second": _finite(reply.stats.tokens_per_second),
    }


def _name(text: str) -> str:
    """Return a name from a model or server, truncated to the column's length with an ellipsis."""
    name = storable_text(text)
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _count(tokens: int) -> int:
    return min(max(tokens, 0), LARGEST_COUNT)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
