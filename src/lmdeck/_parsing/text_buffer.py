"""Text that arrives in small pieces and is read at the end.

`StringIO` may keep up to a hundred thousand pieces.
"""

from __future__ import annotations

from msgspec import Struct

JOINED_AT = 16
"""How many pieces are kept separate.

A piece of five letters takes sixty bytes, and a thousand streams may be open.
"""


class TextBuffer(Struct, eq=False):
    """A buffer that joins pieces of text from time to time.

    So its memory depends on the text, not on the number of pieces.
    """

    _pieces: list[str] = []
    _apart: int = 0  # how many of the last pieces are not joined

    def write(self, piece: str) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self._apart += 1
        if self._apart == JOINED_AT:
            self._pieces[-JOINED_AT:] = ["".join(self._pieces[-JOINED_AT:])]
            self._apart = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def getvalue(self) -> str:
        """Return the whole text."""
        return "".join(self._pieces)
