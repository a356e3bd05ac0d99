"""The summaries that a client has made of the beginnings of its chats."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from lmdeck.messages import Message

MOST_SUMMARIES = 64


class Summaries:
    """The summaries that a client has made, by the messages that they stand for."""

    def __init__(self) -> None:
        self._texts: OrderedDict[int, str] = OrderedDict()

    def get(self, exchanges: Sequence[Sequence[Message]]) -> str | None:
        """Return the summary of these exchanges."""
        return self._texts.get(_mark(exchanges))

    def add(self, exchanges: Sequence[Sequence[Message]], text: str) -> None:
        """Remember a summary."""
        self._texts[_mark(exchanges)] = text
        if len(self._texts) > MOST_SUMMARIES:
            self._texts.popitem(last=False)


def _mark(exchanges: Sequence[Sequence[Message]]) -> int:
    return hash(tuple(repr(message) for exchange in exchanges for message in exchange))
