"""Text that arrives in small pieces and is asked for at the end.

`StringIO` may hold on to every piece until there are a hundred thousand, and a piece of five letters takes sixty bytes.
"""

from __future__ import annotations

__all__ = ["GrowingText"]

JOINED_AT = 1024


class GrowingText:
    """Keep pieces of text and join some at a time, so that memory follows the text and not the number of its pieces."""

    __slots__ = ("_joined", "_pieces")

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._pieces: list[str] = []

    def write(self, piece: str) -> None:
        """Add a piece."""
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) == JOINED_AT:
            self._joined.append("".join(pieces))
            pieces.clear()

    def __bool__(self) -> bool:
        return bool(self._pieces or self._joined)

    def getvalue(self) -> str:
        """Give the whole text."""
        return "".join((*self._joined, *self._pieces))
