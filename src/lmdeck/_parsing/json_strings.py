"""Track the strings of an answer that is JSON: text inside them is never a marker or token."""

from __future__ import annotations

import re

from lmdeck._late_patterns import late_pattern

PIECES = late_pattern(r"\\.|[\"{}\[\]\n]", re.DOTALL)


class JSONStrings:
    """A tracker of the strings in an answer that begins with a brace or bracket, up to its end."""

    __slots__ = ("_backslash", "_depth", "_is_over", "is_inside")

    def __init__(self) -> None:
        self.is_inside = False
        self._is_over = False
        self._depth = 0
        self._backslash = ""  # an unpaired backslash at the end of the text so far

    def feed(self, text: str) -> None:
        """Add text.

        Tracking ends at the end of the value, or at a line end in a string, which JSON does not allow.
        """
        if self._is_over or not (self._depth or text.lstrip()):
            return
        if not self._depth and text.lstrip()[0] not in "{[":
            self._is_over = True
            return
        text = self._backslash + text
        self._backslash = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        for piece in PIECES.findall(text[: len(text) - len(self._backslash)]):
            if piece == '"':
                self.is_inside = not self.is_inside
            elif self.is_inside:
                self._is_over = piece == "\n"
            elif piece in "{}[]":
                self._depth += 1 if piece in "{[" else -1
                self._is_over = not self._depth
            if self._is_over:
                self.is_inside = False
                return
