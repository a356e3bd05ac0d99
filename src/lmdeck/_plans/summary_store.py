"""The summaries of the oldest exchanges of a client's chats."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from lmdeck.messages import Message

MAX_SUMMARIES = 64


class Summaries:
    """The summaries of a client, by the messages that they replace."""

    def __init__(self) -> None:
        self._texts: OrderedDict[int, str] = OrderedDict()

    def get(self, exchanges: Sequence[Sequence[Message]]) -> str | None:
        """Return the summary of these exchanges."""
        return self._texts.get(_mark(exchanges))

    def add(self, exchanges: Sequence[Sequence[Message]], text: str) -> None:
        """Store a summary."""
        self._texts[_mark(exchanges)] = text
        if len(self._texts) > MAX_SUMMARIES:
            self._texts.popitem(last=False)


def _mark(exchanges: Sequence[Sequence[Message]]) -> int:
    return hash(tuple(repr(message) for exchange in exchanges for message in exchange))
