"""The command line: its commands and shared options, and the exit code of each error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from lmdeck._version import __version__
from lmdeck.cli import ask, chat, demo, embed, engine, models, relaying, status, testing
from lmdeck.cli.doctor import command as doctor
from lmdeck.cli.shared_options import Shared
from lmdeck.cli.terminal import errors, exit_code, safe, show_error
from lmdeck.config import ClientSettings
from lmdeck.errors import LMStudioError

app = typer.Typer(
    help="Talk to LM Studio's local server.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer exports only its subclass


def _show_version(wanted: bool) -> None:  # the signature that typer requires
    if wanted:
        typer.echo(f"lmdeck {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="The server's host.")] = None,
    port: Annotated[int | None, typer.Option(help="The server's port.", min=1, max=65535)] = None,
    base_url: Annotated[str | None, typer.Option(help="The server's address, instead of host and port.")] = None,
    timeout: Annotated[float | None, typer.Option(help="The longest silence within an answer, in seconds.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks, and log requests and chunks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Talk to LM Studio's local server; without a command, show its status and the next steps."""
    settings: ClientSettings = {"host": host, "port": port, "base_url": base_url, "timeout": timeout}
    if debug:
        settings["debug"] = True
    if isinstance(context.obj, Shared):
        settings = _merged(context.obj.settings, settings)
    context.obj = Shared(settings=settings, debug=debug)
    if context.invoked_subcommand is None:
        status.show(context.obj.client())


def _merged(project: ClientSettings, options: ClientSettings) -> ClientSettings:
    """Return a project's settings with options of the command line; an address there replaces the project's address."""
    set_: ClientSettings = {name: value for name, value in options.items() if value is not None}  # type: ignore[assignment]
    address = {"host", "port", "base_url"}
    if set_.keys() & address:
        project = {name: value for name, value in project.items() if name not in address}  # type: ignore[assignment]
    return {**project, **set_}


def run(arguments: Sequence[str] | None = None, settings: ClientSettings | None = None, name: str = "lmdeck") -> int:
    """Run the command line and return its exit code: 0 success, 1 no answer, 2 invalid input, 130 Ctrl-C.

    `arguments` default to those of the process; `settings` are those of a project, and options override them.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name=name, standalone_mode=False, obj=Shared(settings=settings or {}))
    except LMStudioError as error:
        if "--debug" in given:
            errors.print_exception()
        show_error(error)
        return exit_code(error)
    except typer.Exit as end:
        return end.exit_code
    except UsageError as error:
        errors.print(Text.assemble(("✗ ", "bold red"), safe(_message(error))), soft_wrap=True)
        errors.print(
            Text.assemble(("  → ", "cyan"), f"Run `{name} --help`, or `{name} COMMAND --help`."), soft_wrap=True
        )
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    """Return a usage error's message with the name of the option, which its `str` lacks."""
    format_message = getattr(error, "format_message", None)
    return str(format_message() if callable(format_message) else error)


app.command("ask")(ask.ask)
app.command("chat")(chat.chat)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("embed")(embed.embed)
app.command("ps")(models.ps)
app.command("fake")(testing.fake)
app.command("record")(testing.record)
app.command("replay")(testing.replay)
app.command("verdict")(testing.verdict)
app.command("run", context_settings=relaying.PROGRAM_FOLLOWS)(relaying.run)
app.command("proxy")(relaying.proxy)
app.add_typer(models.commands, name="models")
app.add_typer(engine.commands, name="engine")
