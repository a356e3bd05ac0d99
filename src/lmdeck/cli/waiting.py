"""A spinner on standard error while a command waits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lmdeck.cli.terminal import errors


def waiting(what: str) -> AbstractContextManager[object]:
    """Show a spinner and the elapsed time until the block ends.
    If standard error is not a terminal, it shows nothing.
    """
    if not errors.is_terminal:
        return nullcontext()
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", "dim", markup=False),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    progress.add_task(what, total=None)
    return progress
