"""Typer commands that are imported when they are used.

They also accept the shared options after their name.
"""

from __future__ import annotations

import re
from copy import copy
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from lmdeck.cli.commands import COMMANDS, CommandEntry

TYPE_NOTES = re.compile(r"(?:; | +\[)(?:required|[\d.<=]*x[\d.<>=]*)\]$")
SERVER_OPTIONS = ("host", "port", "base_url", "timeout")
PROGRAM_FOLLOWS = {"allow_interspersed_args": False, "ignore_unknown_options": True}


class LazyGroup(TyperGroup):
    """The root command, which imports a subcommand when it is used.

    Until then, it knows subcommands by name and summary.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for parameter in self.params:
            _describe_in_words(parameter)
        for command in COMMANDS:
            self.commands[command.name] = TyperCommand(command.name, short_help=command.summary, help=command.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, imported, with the shared options added."""
        name, command, rest = super().resolve_command(ctx, args)
        entry = next((each for each in COMMANDS if each.name == name), None)
        if entry is None:
            return name, command, rest
        shared = [*(SERVER_OPTIONS if entry.asks_server else ()), "debug"]
        loaded = _load(entry)
        _prepare(loaded, [option for option in self.params if option.name in shared], f"{ctx.command_path} --help")
        return name, loaded, rest


def _load(entry: CommandEntry) -> Any:
    """Import a command and return it as Typer built it."""
    module, _, attribute = entry.target.partition(":")
    target = getattr(import_module(f"lmdeck.cli.{module}"), attribute)
    if isinstance(target, typer.Typer):
        return get_group(target)
    single = typer.Typer(add_completion=False)
    single.command(entry.name, context_settings=PROGRAM_FOLLOWS if entry.starts_program else None)(target)
    return get_command(single)


def _prepare(command: Any, shared: list[Any], root_help: str) -> None:
    """Add the shared options to a command and its subcommands, and simplify their help.

    An option that a command has itself is not added.
    """
    command.rich_markup_mode = None
    for parameter in command.params:
        _describe_in_words(parameter)
    own = {parameter.name for parameter in command.params}
    added = [_after_command(option) for option in shared if option.name not in own]
    command.params.extend(added)
    if added:
        names = ", ".join(option.opts[0] for option in added)
        command.epilog = f"Also accepted here: {names} (see `{root_help}`)."
    for subcommand in getattr(command, "commands", {}).values():
        _prepare(subcommand, shared, root_help)


def _describe_in_words(parameter: Any) -> None:
    """Describe a parameter by its metavar alone, in help and usage.

    Python types and ranges are left out.
    """
    record = parameter.get_help_record

    def get_help_record(context: Any) -> tuple[str, str] | None:
        found = record(context)
        if found is None:
            return None
        name = (
            found[0] if parameter.param_type_name == "option" else re.sub("[^A-Z]*([A-Z]+).*", r"\1", parameter.metavar)
        )
        return name, TYPE_NOTES.sub(lambda end: "]" if end[0].startswith(";") else "", found[1])

    parameter.get_help_record = get_help_record
    if parameter.param_type_name == "argument":
        parameter.metavar = parameter.metavar or parameter.name.upper()
        parameter.get_usage_pieces = lambda _: [parameter.metavar]


def _after_command(option: Any) -> Any:
    """Return a copy of a shared option for use after a command.

    It is hidden in the command's help, and passed to `Shared`.
    """
    added = copy(option)
    added.hidden, added.expose_value, added.callback = True, False, _override
    added.get_help_record = lambda _: None
    return added


def _override(context: Any, option: Any, value: Any) -> None:
    """Put the value of an option after a command on the command's own level of the settings."""
    if value is None or value is False or context.resilient_parsing:
        return
    if context.obj is context.parent.obj:
        context.obj = context.obj.with_level()
    context.obj.levels[-1][option.name] = value
