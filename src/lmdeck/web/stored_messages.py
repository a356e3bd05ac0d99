"""Stored messages: the format in which conversations are stored and shown by the page."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from lmdeck._client.paused_run import PausedRun
from lmdeck._text import storable_json, storable_text
from lmdeck.messages import Message, Reply, Round, ToolCall, ToolResult

StoredRole: TypeAlias = Literal["system", "user", "assistant"]
Ending: TypeAlias = Literal["stopped", "cut", "failed", "length", "paused"]
"""How an answer ended early.

In order: the browser disconnected, the connection to the model broke, an error occurred, the token limit was reached, or calls
wait for a decision.
"""
INTERRUPTED: tuple[Ending, ...] = ("stopped", "cut", "failed")
INTERRUPTION_NOTE = "[This answer was interrupted here.]"
LISTED = 50
"""The number of conversations that the page lists."""
TITLE_CHARACTERS = 60


class StoredCall(Struct, frozen=True, kw_only=True):
    """A tool call; `content` is the result that the model received, None if there is none."""

    id: str
    name: str
    arguments: dict[str, Any]
    content: str | None = None
    failed: bool = False


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message to the model, or one round of its answer; its JSON is read by the page's script."""

    role: StoredRole
    content: str = ""
    reasoning: str = ""
    calls: tuple[StoredCall, ...] = ()
    ended: Ending | UnsetType = UNSET
    """How an incomplete answer ended."""
    images: tuple[str, ...] | UnsetType = UNSET
    """The images of a question, as data URIs."""
    id: str | UnsetType = UNSET
    """The id of a stored question, by which its answer finds it later."""

    @classmethod
    def of_round(cls, one: Round) -> StoredMessage:
        """Return the stored form of a round, with characters that databases accept."""
        results = {result.call.id: result for result in one.results}
        return cls(
            role="assistant",
            content=storable_text(one.reply.content),
            reasoning=storable_text(one.reply.reasoning),
            calls=tuple(_stored_call(call, results.get(call.id)) for call in one.reply.tool_calls),
            ended=ending_of(one.reply) or UNSET,
        )

    @property
    def is_interrupted(self) -> bool:
        """Whether the answer ended before the model had finished it."""
        return self.ended in INTERRUPTED

    def history(self) -> list[Message]:
        """Return the messages to send, without reasoning and without calls that have no result.

        Servers reject such calls.

        An interrupted answer ends with a note; without it, models imitate the abrupt ending.
        """
        calls = [call for call in self.calls if call.content is not None]
        if self.role == "assistant" and not self.content and not calls:
            return []
        tool_calls = tuple(ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in calls)
        results = [Message(role="tool", content=call.content or "", tool_call_id=call.id) for call in calls]
        return [Message(role=self.role, content=self._content(), tool_calls=tool_calls), *results]

    def _content(self) -> str | list[dict[str, Any]]:
        if self.is_interrupted:
            return f"{self.content}\n\n{INTERRUPTION_NOTE}".lstrip()
        if not self.images:
            return self.content
        return [
            {"type": "text", "text": self.content},
            *({"type": "image_url", "image_url": {"url": image}} for image in self.images),
        ]


def ending_of(reply: Reply) -> Ending | None:
    """Return how an incomplete reply ended; None for a complete one.

    A page's answer has a problem of that name (`lmdeck.web.answer`); any other reply without a finish reason was cut.
    """
    codes = {problem.code for problem in reply.problems}
    if "paused" in codes:
        return "paused"
    if reply.finish_reason:
        return "length" if reply.finish_reason == "length" else None
    return next((ending for ending in INTERRUPTED if ending in codes), "cut")


def new_rounds(outcome: Reply | PausedRun, resumed: PausedRun | None = None) -> Iterator[Round]:
    """Yield the rounds of an answer to store, without those stored when the run was paused.

    The first round after a pause contains the calls that waited: it replaces the stored one.
    """
    reply = outcome if isinstance(outcome, Reply) else outcome.partial
    for each in islice(_rounds(reply), 0 if resumed is None else len(resumed.rounds), None):
        part = each.reply
        if part.content or part.reasoning or part.tool_calls or (part.problems and ending_of(part)):
            yield each


def title_of(question: str) -> str:
    """Return the title of a conversation that starts with this question."""
    return " ".join(question.split())[:TITLE_CHARACTERS]


def _stored_call(call: ToolCall, result: ToolResult | None) -> StoredCall:
    stored = StoredCall(
        id=storable_text(call.id), name=storable_text(call.name), arguments=storable_json(call.arguments)
    )
    if result is None:
        return stored
    return replace(stored, content=storable_text(result.content), failed=result.error is not None)


def _rounds(reply: Reply) -> Iterator[Round]:
    if reply.rounds:
        yield from reply.rounds
    elif reply.messages:
        yield from _rounds_of_messages(reply)
    else:
        yield Round(reply=reply)


def _rounds_of_messages(reply: Reply) -> Iterator[Round]:
    """Reconstruct the rounds of a reply that the application built from messages.

    The last round has the reply's reasoning.
    """
    outcomes = {message.tool_call_id: _text(message) for message in reply.messages if message.role == "tool"}
    answers = [message for message in reply.messages if message.role == "assistant"]
    for message in answers:
        is_last = message is answers[-1] and _text(message) == reply.content
        calls = list(message.tool_calls)
        yield Round(
            reply=Reply(
                content=_text(message),
                reasoning=reply.reasoning if is_last else "",
                tool_calls=calls,
                finish_reason=reply.finish_reason if message is answers[-1] else "tool_calls",
                problems=list(reply.problems) if message is answers[-1] else [],
            ),
            results=[ToolResult(call=call, content=outcomes[call.id]) for call in calls if call.id in outcomes],
        )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(str(part["text"]) for part in message.content if part.get("type") == "text")
