"""A reply as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.stored_messages import rounds_of

if TYPE_CHECKING:
    from lmdeck.contrib.django.history.models import Conversation, Message

__all__ = ["save_reply"]


def save_reply(conversation: Conversation, reply: Reply) -> list[Message]:
    """Append every round of a reply; a round that said nothing and called nothing is left out."""
    saved = []
    for one in rounds_of(reply):
        said = one.reply
        results = {result.call.id: result for result in one.results}
        message = conversation._append(  # noqa: SLF001  # the other half of the model
            role="assistant",
            content=said.content,
            reasoning=said.reasoning,
            model=said.model,
            finish_reason=said.finish_reason[:40],
        )
        for call in said.tool_calls:
            _save_call(message, call, results.get(call.id))
        _save_usage(conversation, message, said)
        saved.append(message)
    return saved


def _save_call(message: Message, call: ToolCall, result: ToolResult | None) -> None:
    message.tool_calls.create(
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        result=None if result is None else result.content,
        failed=result is not None and result.error is not None,
        seconds=None if result is None else result.seconds,
    )


def _save_usage(conversation: Conversation, message: Message, said: Reply) -> None:
    from lmdeck.contrib.django.history.models import Usage  # late: that module imports this one

    if said.usage is not None:
        Usage.objects.create(
            message=message,
            user_id=conversation.user_id,
            model=said.model,
            prompt_tokens=said.usage.prompt_tokens,
            completion_tokens=said.usage.completion_tokens,
            time_to_first_token=said.stats.time_to_first_token,
            tokens_per_second=said.stats.tokens_per_second,
        )
