"""Output in any encoding.

Marks have ASCII replacements; every other character that cannot be encoded is escaped.
"""

from __future__ import annotations

import codecs
import io
import sys

ERRORS = "lmdeck.cli"
ASCII = {
    "✓": "+", "✗": "x", "→": "->", "…": "...", "·": "-", "•": "*", "–": "-", "—": "-", "×": "x", "≤": "<=", "≥": ">=",
    "─": "-", "━": "-", "╸": "-", "╺": "-", "│": "|", "┃": "|", "▌": "|",
    "●": "*", "▸": ">", "‖": "=", "◔": "o", "↑": "^", "↓": "v",
}  # fmt: skip


def prepare_streams() -> None:
    """Make standard output and error accept every character, and standard input every byte."""
    codecs.register_error(ERRORS, _replace)
    for stream, handler in ((sys.stdout, ERRORS), (sys.stderr, ERRORS), (sys.stdin, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=handler)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of characters that the encoding lacks.

    This is an error handler of `codecs`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    if "⠀" <= character <= "⣿":  # Braille patterns, of spinners
        return "*"
    return ASCII.get(character) or character.encode("ascii", "backslashreplace").decode()
