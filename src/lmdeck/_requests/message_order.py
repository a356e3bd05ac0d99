"""Message orders that some prompt templates refuse; they are reported and sent unchanged.

They are a result without its call, calls without their results, a system message in the middle, and two assistant messages in a
row (lmstudio-bug-tracker #1452, #2218; home-llm #384). The template of a model determines which of these it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmdeck.messages import Problem

ORPHAN = (
    "{where} is the result of the call {id!r}, which no earlier message has: add the assistant's message with the call."
)


def chat_order(messages: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield the order problems of chat messages in OpenAI's format."""
    calls: set[str] = set()
    waiting: set[str] = set()
    before = ""
    for position, message in enumerate(messages):
        role = str(message["role"])
        if role == "tool":
            id_ = str(message.get("tool_call_id"))
            if id_ not in calls:
                yield Problem("orphan_tool_result", ORPHAN.format(where=f"Message {position}", id=id_))
            waiting.discard(id_)
        else:
            detail = _misplaced(role, before, waiting)
            if detail:
                yield Problem("role_order", f"Message {position} {detail}, which some templates refuse.")
            waiting = _ids_of(message["tool_calls"]) if message.get("tool_calls") else set()
            calls |= waiting
        before = role


def _ids_of(calls: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(call.get("id")) for call in calls}


def _misplaced(role: str, before: str, waiting: Iterable[str]) -> str | None:
    """Return what is wrong with a message's position, or None."""
    if waiting:
        return f"comes before the results of the calls {', '.join(sorted(waiting))}"
    if role in {"system", "developer"} and before not in {"", "system", "developer"}:
        return "is a system message that is not at the beginning"
    if role == before == "assistant":
        return "is an assistant message directly after another assistant message"
    return None


def items_order(items: object, *, continues: bool) -> Iterator[Problem]:
    """Yield the order problems of the input of `/v1/responses`.

    If it `continues` a stored response, that may have the calls.
    """
    if continues or not isinstance(items, (list, tuple)):
        return
    calls: set[object] = set()
    for position, item in enumerate(items):
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "function_call":
            calls.add(item.get("call_id"))
        elif kind == "function_call_output" and item.get("call_id") not in calls:
            yield Problem("orphan_tool_result", ORPHAN.format(where=f"Item {position}", id=item.get("call_id")))


def turns_order(messages: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield the order problems of the messages of `/v1/messages`."""
    calls: set[object] = set()
    for position, message in enumerate(messages):
        content = message.get("content")
        for block in content if isinstance(content, (list, tuple)) else ():
            kind = block.get("type") if isinstance(block, Mapping) else None
            if kind == "tool_use":
                calls.add(block.get("id"))
            elif kind == "tool_result" and block.get("tool_use_id") not in calls:
                where = f"A block of message {position}"
                yield Problem("orphan_tool_result", ORPHAN.format(where=where, id=block.get("tool_use_id")))
