"""Where prose shows code: markers inside a fence, inside backticks or behind an opening quote are only talked about."""

from __future__ import annotations

import re

__all__ = ["Prose"]

PIECES = re.compile(r"`+|\n|[ \t\r]+|[^`\n \t\r][^`\n]*")
OPENING_QUOTE = re.compile(r"(?:^|[\s(\[{:=,])[\"'“‘«„]\Z")


class Prose:
    """Follows the text that goes to the user, as far as fences, code spans, quotes and line starts ask for it."""

    __slots__ = ("_fence", "_is_quoted", "_last", "_run", "_run_begins_line", "_span", "is_line_start")

    def __init__(self) -> None:
        self._fence = 0
        self._is_quoted = False  # up to the end of the line
        self._span = 0
        self._run = 0
        self._run_begins_line = False
        self._last = "\n"
        self.is_line_start = True

    def see(self, text: str) -> None:
        """Follow text that was passed on."""
        self._last = (self._last + text)[-3:] if len(text) < 3 else text[-3:]
        if "`" not in text and "\n" not in text and not self._run:
            self.is_line_start = self.is_line_start and text.isspace()
            return
        for piece in PIECES.findall(text):
            if piece[0] == "`":
                if not self._run:
                    self._run_begins_line = self.is_line_start
                self._run += len(piece)
                self.is_line_start = False
                continue
            self._settle()
            if piece == "\n":
                self._span = 0
                self._is_quoted = False
                self.is_line_start = True
            elif not piece.isspace():
                self.is_line_start = False

    def shows_code(self) -> bool:
        """Tell whether what comes next is inside code, or quoted."""
        self._settle()
        self._is_quoted = self._is_quoted or OPENING_QUOTE.search(self._last) is not None
        return bool(self._fence or self._span or self._is_quoted)

    @property
    def is_plain(self) -> bool:
        """Tell whether a piece of text without backticks and line ends changes nothing here."""
        return not (self._run or self.is_line_start)

    def pass_plain(self, text: str) -> None:
        """Follow text that has neither."""
        self._last = (self._last + text)[-3:] if len(text) < 3 else text[-3:]

    def _settle(self) -> None:
        run, self._run = self._run, 0
        if not run:
            return
        if self._fence:
            if self._run_begins_line and run >= self._fence:
                self._fence = 0
        elif run >= 3 and self._run_begins_line:
            self._fence = run
        elif self._span == run:
            self._span = 0
        elif not self._span:
            self._span = run
