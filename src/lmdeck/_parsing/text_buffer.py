"""Text that arrives in small pieces and is read at the end.

`StringIO` would hold up to a hundred thousand separate pieces.
"""

from __future__ import annotations

from msgspec import Struct

JOINED_AT = 16
"""How many pieces are stored separately: a piece of five letters takes sixty bytes."""


class TextBuffer(Struct, eq=False):
    """A buffer that joins its pieces regularly, to save memory."""

    _pieces: list[str] = []
    _separate: int = 0  # how many of the last pieces are not joined

    def write(self, piece: str) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self._separate += 1
        if self._separate == JOINED_AT:
            self._pieces[-JOINED_AT:] = ["".join(self._pieces[-JOINED_AT:])]
            self._separate = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def getvalue(self) -> str:
        """Return the whole text."""
        return "".join(self._pieces)
