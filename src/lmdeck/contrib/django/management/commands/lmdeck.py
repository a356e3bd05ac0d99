"""`manage.py lmdeck`: lmdeck's command line with the project's settings, and `init`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser

from lmdeck.cli import run
from lmdeck.contrib.django.conf import configuration
from lmdeck.contrib.django.init import init_project
from lmdeck.errors import LMStudioError


class Command(BaseCommand):
    """Run `lmdeck` for this project."""

    help = (
        "Talk to the LM Studio of this project: doctor, models, ps, ask, chat, embed; without a command, show its status. "
        "`init [APP]` writes a first lmdeck_tools.py and lists the settings to add."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Collect all arguments unparsed; lmdeck parses them."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND …")

    def handle(self, *_: object, arguments: list[str], **__: Any) -> None:  # Django's form
        """Run the command and exit with its exit code."""
        with redirect_stdout(cast("TextIO", self.stdout._out)):  # noqa: SLF001  # Django's wrapper appends newlines
            code = self._init(arguments[1:]) if arguments[:1] == ["init"] else _run(arguments)
        if code:
            sys.exit(code)

    def _init(self, arguments: list[str]) -> int:
        if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
            raise CommandError("Usage: manage.py lmdeck init [APP]")
        for line in init_project(arguments[0] if arguments else None):
            print(line)
        return 0


def _run(arguments: list[str]) -> int:
    try:
        settings = configuration().client
    except LMStudioError as error:
        raise CommandError(str(error), returncode=2) from error
    return run(arguments, settings, "manage.py lmdeck")
