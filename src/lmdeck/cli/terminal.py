"""How things look on the terminal: text that cannot do harm, errors as a line with a hint, figures people can read."""

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

__all__ = ["console", "echo_json", "errors", "exit_code", "safe", "show_error", "size", "stats_line", "write"]

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

# What a terminal would obey: C0 and C1 controls but for tab and newline, line separators, and marks of direction.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Take out of a model's or server's text what a terminal would obey."""
    return _CONTROLS.sub("", text)


def echo_json(value: object, *, on_one_line: bool = False) -> None:
    """Print a value as JSON, in which what a terminal would obey is escaped: it can stand in strings alone."""
    written = msgspec.json.encode(value)
    text = (written if on_one_line else msgspec.json.format(written)).decode()
    typer.echo(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def show_error(error: LMStudioError) -> None:
    """Show an error as what happened, and below it what to do."""
    message = Text.assemble(("✗ ", "bold red"), " ".join(safe(error.message).split()))
    errors.print(message, soft_wrap=True)
    errors.print(Text.assemble(("  → ", "cyan"), safe(error.hint)), soft_wrap=True)


def exit_code(error: LMStudioError) -> int:
    """Give 2 where the user's own input is wrong, else 1."""
    return 2 if isinstance(error, ConfigurationError) else 1


def stats_line(reply: Reply) -> Text:
    """Say in one dim line who answered, how much and how fast."""
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
    """Write a number of bytes as people do; nothing for 0, which stands for not known."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.1f} {unit}" if unit == "GB" else f"{amount:.0f} {unit}"
        amount /= 1000
    return ""


def write(text: str) -> None:
    """Write text to standard output as it comes; a reader that has enough (`… | head -1`) ends the command quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and must not complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
