"""Terminal output: sanitized text, errors with a hint, human-readable figures."""

from __future__ import annotations

import os
import re
import sys

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.messages import Reply

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

# What a terminal interprets: C0 and C1 controls except tab and newline, line separators, and direction marks.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Remove from a model's or server's text the control characters that a terminal interprets."""
    return _CONTROLS.sub("", text)


def echo_json(value: object, *, on_one_line: bool = False) -> None:
    """Print a value as JSON; control characters, which occur in strings only, are escaped."""
    encoded = msgspec.json.encode(value)
    text = (encoded if on_one_line else msgspec.json.format(encoded)).decode()
    typer.echo(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def show_error(error: LMStudioError) -> None:
    """Print an error: what happened, and below it what to do."""
    message = Text.assemble(("✗ ", "bold red"), " ".join(safe(error.message).split()))
    errors.print(message, soft_wrap=True)
    errors.print(Text.assemble(("  → ", "cyan"), safe(error.hint)), soft_wrap=True)


def exit_code(error: LMStudioError) -> int:
    """Return the exit code of an error: 2 for invalid input, else 1."""
    return 2 if isinstance(error, ConfigurationError) else 1


def stats_line(reply: Reply) -> Text:
    """Return a dim line with the model, the number of tokens and the speed of a reply."""
    parts = [reply.model or "?"]
    if reply.usage:
        parts.append(f"{reply.usage.completion_tokens} tokens")
    if reply.stats.tokens_per_second:
        parts.append(f"{reply.stats.tokens_per_second:.1f} tokens/s")
    if reply.stats.time_to_first_token is not None:
        parts.append(f"first after {reply.stats.time_to_first_token:.2f} s")
    if reply.finish_reason not in {"stop", ""}:
        parts.append(reply.finish_reason)
    parts += [problem.code for problem in reply.problems]
    return Text(safe(" · ".join(parts)), style="dim")


def size(count: int) -> str:
    """Return a number of bytes with a decimal unit, such as `4.7 GB`."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.1f} {unit}" if unit == "GB" else f"{amount:.0f} {unit}"
        amount /= 1000
    return ""


def write(text: str) -> None:
    """Write text to standard output and flush; a closed pipe (`… | head -1`) ends the command silently."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit; without this, it would print an error then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
