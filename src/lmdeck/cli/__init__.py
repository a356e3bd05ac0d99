"""The command line `lmdeck`: for people, and with `--json` for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmdeck.cli.version import VERSION_LINE

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings

__all__ = ["main", "run"]

NEEDED = ("typer", "rich", "prompt_toolkit")


def main() -> None:
    """Run the command line and exit; the version alone is printed without loading it."""
    if sys.argv[1:] == ["--version"]:
        print(VERSION_LINE)
        return
    sys.exit(run())


def run(arguments: Sequence[str] | None = None, settings: ClientSettings | None = None, name: str = "lmdeck") -> int:
    """Run the command line and return its exit code.

    If its packages are missing, print which extra to install.

    `settings` are those of a project, `name` is the command that its users type.
    """
    try:
        from lmdeck.cli.app import run as run_command

        return run_command(arguments, settings, name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        message = f"lmdeck: the command line needs the package {error.name}, which is not installed."
        print(f'{message} Install it with `pip install "lmdeck[cli]"`.', file=sys.stderr)
        return 2
