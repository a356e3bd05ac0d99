"""Plain output: sanitized text and JSON.

It works without Rich, whose import takes longer than a short command.
"""

from __future__ import annotations

import json
import os
import re
import sys

import msgspec
import typer

# What a terminal interprets: C0 and C1 controls except tab and newline, line separators, and direction marks.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Remove from a model's or server's text the control characters that a terminal interprets."""
    return _CONTROLS.sub("", text)


def echo_json(value: object, *, on_one_line: bool = False) -> None:
    """Print a value as JSON.

    Control characters, and what the output's encoding lacks, are escaped.
    """
    encoded = msgspec.json.encode(value)
    if not (sys.stdout.encoding or "utf-8").lower().replace("-", "").startswith("utf"):
        encoded = json.dumps(json.loads(encoded), separators=(",", ":")).encode()
    text = (encoded if on_one_line else msgspec.json.format(encoded)).decode()
    typer.echo(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def write(text: str) -> None:
    """Write text to standard output and flush.

    A closed pipe (`… | head -1`) ends the command silently.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit; without this, it would print an error then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
