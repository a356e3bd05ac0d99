"""A sign of life while nothing comes: what is waited for, and for how long, on standard error."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lmdeck.cli.terminal import errors

__all__ = ["waiting"]


def waiting(what: str) -> AbstractContextManager[object]:
    """Show a spinner with the time until the block ends; nothing where no person looks."""
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
