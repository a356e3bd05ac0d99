"""What is kept of a conversation, and what the page shows of it: reasoning beside the words, results beside their calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from lmdeck.messages import Message, Reply, Round, ToolCall, ToolResult

__all__ = ["LISTED", "TITLE_CHARACTERS", "KeptCall", "KeptMessage", "KeptRole", "rounds_of", "title_of"]

KeptRole: TypeAlias = Literal["system", "user", "assistant"]
LISTED = 50
"""How many conversations the page lists."""
TITLE_CHARACTERS = 60


class KeptCall(Struct, frozen=True, kw_only=True):
    """A call of a tool; `content` is what the model was told, None where nothing came of it."""

    id: str
    name: str
    arguments: dict[str, Any]
    content: str | None = None
    failed: bool = False


class KeptMessage(Struct, frozen=True, kw_only=True):
    """A message to the model, or one round of its answer; as JSON, what the page's script reads."""

    role: KeptRole
    content: str = ""
    reasoning: str = ""
    calls: tuple[KeptCall, ...] = ()

    @classmethod
    def of_round(cls, one: Round) -> KeptMessage:
        """Give what is kept of a round."""
        results = {result.call.id: result for result in one.results}
        calls = tuple(_kept_call(call, results.get(call.id)) for call in one.reply.tool_calls)
        return cls(role="assistant", content=one.reply.content, reasoning=one.reply.reasoning, calls=calls)

    def history(self) -> list[Message]:
        """Give it as a model is told of it: without reasoning, and without calls that have no result, which none accepts."""
        calls = [call for call in self.calls if call.content is not None]
        if self.role == "assistant" and not self.content and not calls:
            return []
        asked = tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls)
        results = [Message(role="tool", content=call.content or "", tool_call_id=call.id) for call in calls]
        return [Message(role=self.role, content=self.content, tool_calls=asked), *results]


def rounds_of(reply: Reply) -> Iterator[Round]:
    """Give the rounds of a reply that have something to keep; an answer without tools is one."""
    for one in _rounds(reply):
        if one.reply.content or one.reply.reasoning or one.reply.tool_calls:
            yield one


def title_of(question: str) -> str:
    """Give the title of a conversation that begins with this question."""
    return " ".join(question.split())[:TITLE_CHARACTERS]


def _kept_call(call: ToolCall, result: ToolResult | None) -> KeptCall:
    kept = KeptCall(id=call.id, name=call.name, arguments=call.arguments)
    if result is None:
        return kept
    return replace(kept, content=result.content, failed=result.error is not None)


def _rounds(reply: Reply) -> Iterator[Round]:
    if reply.rounds:
        yield from reply.rounds
    elif reply.messages:
        yield from _rounds_of_messages(reply)
    else:
        yield Round(reply=reply)


def _rounds_of_messages(reply: Reply) -> Iterator[Round]:
    """Read the rounds out of the messages of a reply that was made by hand; the last has the reply's reasoning."""
    told = {message.tool_call_id: _text(message) for message in reply.messages if message.role == "tool"}
    spoken = [message for message in reply.messages if message.role == "assistant"]
    for message in spoken:
        is_last = message is spoken[-1] and _text(message) == reply.content
        calls = list(message.tool_calls)
        yield Round(
            reply=Reply(content=_text(message), reasoning=reply.reasoning if is_last else "", tool_calls=calls),
            results=[ToolResult(call=call, content=told[call.id]) for call in calls if call.id in told],
        )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if part.get("type") == "text")
