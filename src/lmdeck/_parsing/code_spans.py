"""Where prose shows code: markers inside a fence, inside backticks or behind an opening quote are only talked about."""

from __future__ import annotations

import re

from lmdeck._parsing.json_strings import JSONStrings

__all__ = ["Prose"]

PIECES = re.compile(r"`+|\n|[^`\n]+")
OPENING_QUOTE = re.compile(r"(?:^|[\s(\[{:=,])[\"'“‘«„]\Z")
UNSEEN = 1024


class Prose:
    """Follows the text that goes to the user, as far as fences, code spans, quotes and line starts ask for it.

    Text is only kept until somebody asks, so that prose without markers costs next to nothing.
    """

    __slots__ = (
        "_fence",
        "_is_line_start",
        "_is_quoted",
        "_json",
        "_last",
        "_run",
        "_run_begins_line",
        "_span",
        "_unseen",
    )

    def __init__(self) -> None:
        self._fence = 0
        self._is_quoted = False  # up to the end of the line
        self._span = 0
        self._run = 0
        self._run_begins_line = False
        self._last = "\n"
        self._is_line_start = True
        self._unseen: list[str] = []
        self._json = JSONStrings()

    def see(self, text: str) -> None:
        """Follow text that was passed on."""
        self._unseen.append(text)
        if len(self._unseen) >= UNSEEN:
            self._look()

    @property
    def is_line_start(self) -> bool:
        """Whether nothing but white space stands on the line so far."""
        self._look()
        return self._is_line_start

    def shows_code(self) -> bool:
        """Whether what comes next is inside code, or quoted."""
        self._look()
        self._settle()
        self._is_quoted = self._is_quoted or OPENING_QUOTE.search(self._last) is not None
        return bool(self._fence or self._span or self._is_quoted or self._json.is_inside)

    def is_in_span(self) -> bool:
        """Whether what comes next is inside backticks."""
        self._look()
        self._settle()
        return bool(self._span)

    def _look(self) -> None:
        """Read what was not looked at yet."""
        if not self._unseen:
            return
        text = "".join(self._unseen)
        self._unseen.clear()
        self._json.see(text)
        self._last = (self._last + text)[-3:]
        for piece in PIECES.findall(text):
            if piece[0] == "`":
                if not self._run:
                    self._run_begins_line = self._is_line_start
                self._run += len(piece)
                self._is_line_start = False
                continue
            self._settle()
            if piece == "\n":
                self._span = 0
                self._is_quoted = False
                self._is_line_start = True
            elif self._is_line_start:
                self._is_line_start = piece.isspace()

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
