"""A reply as rows, each value one that every database can hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lmdeck._text import storable_json, storable_text
from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.stored_messages import ending_of, rounds_of

if TYPE_CHECKING:
    from lmdeck.contrib.django.history.models import Conversation, Message

__all__ = ["save_reply"]

NAME_LENGTH = 200
REASON_LENGTH = 40
LARGEST_COUNT = 2**31 - 1


def save_reply(conversation: Conversation, reply: Reply) -> list[Message]:
    """Append every round of a reply; a round that said nothing and called nothing is left out."""
    saved = []
    for one in rounds_of(reply):
        said = one.reply
        results = {result.call.id: result for result in one.results}
        message = conversation._append(  # noqa: SLF001  # the other half of the model
            role="assistant",
            content=storable_text(said.content),
            reasoning=storable_text(said.reasoning),
            model=_name(said.model),
            finish_reason=storable_text(said.finish_reason)[:REASON_LENGTH],
            ended=ending_of(said) or "",
        )
        for call in said.tool_calls:
            _save_call(message, call, results.get(call.id))
        _save_usage(conversation, message, said)
        saved.append(message)
    return saved


def _save_call(message: Message, call: ToolCall, result: ToolResult | None) -> None:
    message.tool_calls.create(
        call_id=storable_text(call.id),
        name=_name(call.name),
        arguments=storable_json(call.arguments),
        result=None if result is None else storable_text(result.content),
        failed=result is not None and result.error is not None,
        seconds=None if result is None else _figure(result.seconds),
    )


def _save_usage(conversation: Conversation, message: Message, said: Reply) -> None:
    from lmdeck.contrib.django.history.models import Usage  # late: that module imports this one

    if said.usage is not None:
        Usage.objects.db_manager(hints={"instance": message}).create(
            message=message,
            user_id=conversation.user_id,
            model=_name(said.model),
            prompt_tokens=_count(said.usage.prompt_tokens),
            completion_tokens=_count(said.usage.completion_tokens),
            time_to_first_token=_figure(said.stats.time_to_first_token),
            tokens_per_second=_figure(said.stats.tokens_per_second),
        )


def _name(text: str) -> str:
    """Shorten a name that a model or server made up; an end that is missing shows."""
    name = storable_text(text)
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _count(tokens: int) -> int:
    return min(max(tokens, 0), LARGEST_COUNT)


def _figure(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
