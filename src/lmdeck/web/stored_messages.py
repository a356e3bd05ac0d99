"""What is kept of a conversation, and what the page shows of it: reasoning beside the words, results beside their calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from lmdeck._text import storable_json, storable_text
from lmdeck.messages import Message, Reply, Round, ToolCall, ToolResult

__all__ = [
    "LISTED",
    "TITLE_CHARACTERS",
    "Ending",
    "KeptCall",
    "KeptMessage",
    "KeptRole",
    "ending_of",
    "rounds_of",
    "title_of",
]

KeptRole: TypeAlias = Literal["system", "user", "assistant"]
Ending: TypeAlias = Literal["stopped", "cut", "failed", "length"]
"""Its reader left, the way to the model broke, an error came, or the limit of tokens was reached."""
BROKEN_OFF: tuple[Ending, ...] = ("stopped", "cut", "failed")
PART_MARK = "[This answer was broken off here.]"
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
    ended: Ending | UnsetType = UNSET
    """How an answer ended that is not whole."""

    @classmethod
    def of_round(cls, one: Round) -> KeptMessage:
        """Return what is stored of a round; every text is one that a database can hold."""
        results = {result.call.id: result for result in one.results}
        return cls(
            role="assistant",
            content=storable_text(one.reply.content),
            reasoning=storable_text(one.reply.reasoning),
            calls=tuple(_kept_call(call, results.get(call.id)) for call in one.reply.tool_calls),
            ended=ending_of(one.reply) or UNSET,
        )

    @property
    def is_part(self) -> bool:
        """Whether it is part of an answer that somebody or something ended before the model did."""
        return self.ended in BROKEN_OFF

    def history(self) -> list[Message]:
        """Return it as the model is sent it: without reasoning, and without calls that have no result, which no model accepts.

        Part of an answer is marked as such: a model takes what it reads as its own whole turn for an example.
        """
        calls = [call for call in self.calls if call.content is not None]
        if self.role == "assistant" and not self.content and not calls:
            return []
        asked = tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls)
        results = [Message(role="tool", content=call.content or "", tool_call_id=call.id) for call in calls]
        content = f"{self.content}\n\n{PART_MARK}".lstrip() if self.is_part else self.content
        return [Message(role=self.role, content=content, tool_calls=asked), *results]


def ending_of(reply: Reply) -> Ending | None:
    """Return how a reply ended that is not whole; None for a whole one.

    A page's answer says it in its problems (`lmdeck.web.answer`); any other that has no finish reason was cut.
    """
    if reply.finish_reason:
        return "length" if reply.finish_reason == "length" else None
    codes = {problem.code for problem in reply.problems}
    return next((ending for ending in BROKEN_OFF if ending in codes), "cut")


def rounds_of(reply: Reply) -> Iterator[Round]:
    """Give the rounds of a reply that have something to keep; an answer without tools is one."""
    for one in _rounds(reply):
        said = one.reply
        if said.content or said.reasoning or said.tool_calls or (said.problems and ending_of(said)):
            yield one


def title_of(question: str) -> str:
    """Give the title of a conversation that begins with this question."""
    return " ".join(question.split())[:TITLE_CHARACTERS]


def _kept_call(call: ToolCall, result: ToolResult | None) -> KeptCall:
    kept = KeptCall(id=storable_text(call.id), name=storable_text(call.name), arguments=storable_json(call.arguments))
    if result is None:
        return kept
    return replace(kept, content=storable_text(result.content), failed=result.error is not None)


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
            reply=Reply(
                content=_text(message),
                reasoning=reply.reasoning if is_last else "",
                tool_calls=calls,
                finish_reason=reply.finish_reason if message is spoken[-1] else "tool_calls",
                problems=list(reply.problems) if message is spoken[-1] else [],
            ),
            results=[ToolResult(call=call, content=told[call.id]) for call in calls if call.id in told],
        )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if part.get("type") == "text")
