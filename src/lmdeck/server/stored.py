"""The responses that `previous_response_id` can refer to."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from lmdeck._encoders.common import item_id
from lmdeck.server.errors import Refusal
from lmdeck.server.jobs import CalledTool, ChatMessage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmdeck._encoders.blocks import OutputBlock


class StoredResponses:
    """The most recent responses of this server, each with its whole history.

    The oldest are dropped first.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._histories: OrderedDict[str, tuple[ChatMessage, ...]] = OrderedDict()

    def history(self, response_id: str | None) -> tuple[ChatMessage, ...]:
        """Return the messages up to and including a response; empty if `response_id` is None.

        Raises:
            Refusal: There is no such response: it was never made, not stored, or dropped.
        """
        if response_id is None:
            return ()
        if response_id not in self._histories:
            message = f"Previous response with id '{response_id}' not found."
            raise Refusal(404, message, param="previous_response_id", code="previous_response_not_found")
        self._histories.move_to_end(response_id)
        return self._histories[response_id]

    def add(self, messages: Iterable[ChatMessage], response_id: str | None = None) -> str:
        """Store a history, and return the id by which it can be continued."""
        response_id = response_id or item_id("resp")
        self._histories[response_id] = tuple(messages)
        while len(self._histories) > self._limit:
            self._histories.popitem(last=False)
        return response_id

    def clear(self) -> None:
        """Drop all responses, as a restart of the server does."""
        self._histories.clear()


def blocks_to_messages(blocks: Iterable[OutputBlock]) -> list[ChatMessage]:
    """Return an answer as messages.

    They are the assistant's messages, with a tool message after each call that the server ran.
    """
    messages: list[ChatMessage] = []
    texts: list[str] = []
    calls: list[CalledTool] = []

    def close() -> None:
        if texts or calls:
            messages.append(ChatMessage(role="assistant", text="".join(texts), tool_calls=tuple(calls)))
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
                messages.append(ChatMessage(role="tool", text=text, tool_call_id=block.id))
    close()
    return messages
