"""A spinner on standard error while a command waits."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext


def waiting(what: str) -> AbstractContextManager[object]:
    """Show a spinner and the elapsed time until the block ends.

    If standard error is not a terminal, it shows nothing.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from lmdeck.cli.terminal import errors

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", "dim", markup=False),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    progress.add_task(what, total=None)
    return progress
