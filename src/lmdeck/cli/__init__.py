"""The command line `lmdeck`: for people, and with `--json` for programs."""

from __future__ import annotations

import sys

__all__ = ["main"]

NEEDED = ("typer", "rich", "prompt_toolkit")


def main() -> None:
    """Run the command line; if its packages are missing, print which extra to install."""
    try:
        from lmdeck.cli.app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        print(f'lmdeck: the command line needs {error.name}: pip install "lmdeck[cli]"', file=sys.stderr)
        sys.exit(2)
    sys.exit(run())
