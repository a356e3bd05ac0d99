"""A reply as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from lmdeck.messages import Message as MessageValue
from lmdeck.messages import Reply, ToolCall, ToolResult

if TYPE_CHECKING:
    from lmdeck.contrib.django.history.models import Conversation, Message

__all__ = ["save_reply"]


def save_reply(conversation: Conversation, reply: Reply) -> list[Message]:
    """Append every round of a reply; a round that said nothing and called nothing is left out."""
    saved = []
    for said, results in _rounds(reply):
        if not (said.content or said.reasoning or said.tool_calls):
            continue
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


def _rounds(reply: Reply) -> Iterator[tuple[Reply, Mapping[str, ToolResult]]]:
    if reply.rounds:
        for one in reply.rounds:
            yield one.reply, {result.call.id: result for result in one.results}
    elif reply.messages:
        yield from _rounds_of_messages(reply)
    else:
        yield reply, {}


def _rounds_of_messages(reply: Reply) -> Iterator[tuple[Reply, Mapping[str, ToolResult]]]:
    """Read the rounds of a run that was cut out of its messages; only the last has the reply's reasoning."""
    told = {message.tool_call_id: _text(message) for message in reply.messages if message.role == "tool"}
    spoken = [message for message in reply.messages if message.role == "assistant"]
    for message in spoken:
        is_last = message is spoken[-1] and _text(message) == reply.content
        results = {
            call.id: ToolResult(call=call, content=told[call.id]) for call in message.tool_calls if call.id in told
        }
        reasoning = reply.reasoning if is_last else ""
        yield Reply(content=_text(message), reasoning=reasoning, tool_calls=list(message.tool_calls)), results


def _text(message: MessageValue) -> str:
    return message.content if isinstance(message.content, str) else ""


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
