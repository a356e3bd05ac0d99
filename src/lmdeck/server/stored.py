"""Answers that can be continued: what `previous_response_id` refers to."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from lmdeck.server.encoders.common import item_id
from lmdeck.server.errors import Refusal
from lmdeck.server.jobs import CalledTool, ChatMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmdeck.server.blocks import Block

__all__ = ["StoredAnswers", "spoken"]


class StoredAnswers:
    """The last answers of this server, each with the history that led to it; the oldest are forgotten first."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._histories: OrderedDict[str, tuple[ChatMessage, ...]] = OrderedDict()

    def history(self, response_id: str | None) -> tuple[ChatMessage, ...]:
        """Give the turns up to an answer and with it; none where none is named.

        Raises:
            Refusal: It was never given, not stored, or is forgotten.
        """
        if response_id is None:
            return ()
        if response_id not in self._histories:
            message = f"Previous response with id '{response_id}' not found."
            raise Refusal(404, message, param="previous_response_id", code="previous_response_not_found")
        self._histories.move_to_end(response_id)
        return self._histories[response_id]

    def keep(self, turns: Iterable[ChatMessage], response_id: str | None = None) -> str:
        """Keep a history, and give the id by which it is continued."""
        response_id = response_id or item_id("resp")
        self._histories[response_id] = tuple(turns)
        while len(self._histories) > self._limit:
            self._histories.popitem(last=False)
        return response_id

    def forget(self) -> None:
        """Forget all of them, as a server does that was started anew."""
        self._histories.clear()


def spoken(blocks: Iterable[Block]) -> list[ChatMessage]:
    """Write an answer as turns of a history: the assistant's, and after a call that the server ran, the tool's."""
    turns: list[ChatMessage] = []
    texts: list[str] = []
    calls: list[CalledTool] = []

    def close() -> None:
        if texts or calls:
            turns.append(ChatMessage(role="assistant", text="".join(texts), tool_calls=tuple(calls)))
            texts.clear()
            calls.clear()

    for block in blocks:
        if block.kind == "text":
            texts.append(block.text)
        elif block.kind == "call":
            calls.append(CalledTool(id=block.id, name=block.name, arguments=block.text or "{}"))
            if block.outcome is not None:
                close()
                text = block.outcome.reason or block.outcome.output
                turns.append(ChatMessage(role="tool", text=text, tool_call_id=block.id))
    close()
    return turns
