"""Output through Rich: lines with a mark, tables, errors with a hint, readable figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lmdeck.cli.plain_output import safe
from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.messages import Reply

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Mark = tuple[str, str]
GOOD: Mark = ("✓", "green")
WARNING: Mark = ("!", "yellow")
BAD: Mark = ("✗", "bold red")
NEXT: Mark = ("  →", "cyan")


def show_line(mark: Mark, text: str | Text, *, label: str = "", on: Console = console) -> None:
    """Print a mark, a label in bold and a text on one line.

    On a terminal, the text is wrapped between words and indented.
    """
    head = Text.assemble((f"{mark[0]} ", mark[1]), (label, "bold"))
    body = text if isinstance(text, Text) else Text(safe(text))
    if not on.is_terminal:
        on.print(Text.assemble(head, body), soft_wrap=True)
        return
    indent = Text(" " * head.cell_len)
    for number, line in enumerate(body.wrap(on, max(on.width - head.cell_len, 20))):
        line.rstrip()
        on.print(Text.assemble(indent if number else head, line))


def show_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    right: Sequence[str] = (),
    unnamed: Sequence[str] = (),
) -> None:
    """Print a table; in a terminal that is too narrow for it, a block for each row.

    Columns in `right` are aligned to the right. In a block, each value follows its header, except those in `unnamed`.
    """
    cells = [[cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row] for row in rows]
    widths = [max(cell_len(header), *(row[at].cell_len for row in cells)) for at, header in enumerate(headers)]
    if console.is_terminal and sum(widths) + 2 * (len(widths) - 1) > console.width:
        for row in cells:
            console.print(Text.assemble(row[0]), style="bold", soft_wrap=True)
            named = [
                cell if header in unnamed else Text.assemble(f"{header} ", cell)
                for header, cell in zip(headers[1:], row[1:], strict=True)
                if cell.plain.strip()
            ]
            show_line((" ", ""), Text(" · ").join(named))
        return
    for number, row in enumerate([[Text(header, "bold") for header in headers], *cells]):
        for cell, width, header in zip(row, widths, headers, strict=True):
            padding = width - cell.cell_len
            cell.pad_left(padding) if header in right else cell.pad_right(padding)
        line = Text("  ").join(row)
        line.rstrip()
        console.print(line, soft_wrap=True, style="bold" if number == 0 else "")


def show_error(error: LMStudioError) -> None:
    """Print an error: what happened, and below it what to do."""
    show_line(BAD, " ".join(error.message.split()), on=errors)
    show_line(NEXT, error.hint, on=errors)


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
        parts.append(f"first token after {reply.stats.time_to_first_token:.2f} s")
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
