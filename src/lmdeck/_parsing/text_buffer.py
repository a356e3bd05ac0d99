"""Text that arrives in small pieces and is read at the end.

`StringIO` may keep up to a hundred thousand pieces.
"""

from __future__ import annotations

JOINED_AT = 16
"""How many pieces are kept separate.

A piece of five letters takes sixty bytes, and a thousand streams may be open.
"""


class TextBuffer:
    """A buffer that joins pieces of text from time to time.

    So its memory depends on the text, not on the number of pieces.
    """

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
        """Return the whole text."""
        return "".join((*self._joined, *self._pieces))
