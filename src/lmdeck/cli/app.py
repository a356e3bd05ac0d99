"""The command line: the options of all commands, and the exit code of each error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmdeck.cli.command_tree import LazyGroup
from lmdeck.cli.encodings import prepare_streams
from lmdeck.cli.shared_options import Shared
from lmdeck.cli.version import VERSION_LINE

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings
    from lmdeck.errors import LMStudioError

app = typer.Typer(
    cls=LazyGroup,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="[OPTIONS]",
    subcommand_metavar="COMMAND",
    epilog="`lmdeck COMMAND --help` describes a command. The first five options may also follow the command.",
    rich_markup_mode=None,
)


UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer exports only its subclass


def _show_version(wanted: bool) -> None:  # the signature that typer requires
    if wanted:
        typer.echo(VERSION_LINE)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="The server's host (LMDECK_HOST; default: localhost).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="The server's port (LMDECK_PORT; default: 1234)."),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The server's address; replaces both (LMDECK_BASE_URL).")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="The longest pause between two chunks (LMDECK_TIMEOUT; default: 60)."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, and log requests and chunks (LMDECK_DEBUG).")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Talk to LM Studio's local server.

    Without a command: show the server's status and what to do next.

    Where no option says otherwise, settings come from the environment, lmdeck.toml or pyproject.toml; LM_API_TOKEN holds the
    server's token.
    """
    options = {"host": host, "port": port, "base_url": base_url, "timeout": timeout, "debug": debug or None}
    context.obj = Shared(*context.obj.levels, {name: value for name, value in options.items() if value is not None})
    if context.invoked_subcommand is None:
        from lmdeck.cli import status

        status.show(context.obj.client())


def run(arguments: Sequence[str] | None = None, settings: ClientSettings | None = None, name: str = "lmdeck") -> int:
    """Run the command line and return its exit code.

    The code is 0 for success, 1 without an answer, 2 for invalid input, 130 after Ctrl-C.

    `arguments` default to those of the process; `settings` are those of a project, and options override them.
    """
    prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words, prog_name=name, standalone_mode=False, obj=Shared(dict(settings or {})))
    except typer.Exit as end:
        return end.exit_code
    except UsageError as error:
        return _show_usage_error(error, name)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        from lmdeck.errors import LMStudioError

        if isinstance(error, LMStudioError):
            return _show_error(error, with_traceback="--debug" in words)
        raise
    return code if isinstance(code, int) else 0


def _show_error(error: LMStudioError, *, with_traceback: bool) -> int:
    from lmdeck.cli import terminal

    if with_traceback:
        terminal.errors.print_exception()
    terminal.show_error(error)
    return terminal.exit_code(error)


def _show_usage_error(error: Any, name: str) -> int:
    """Print a usage error with the name of its option.

    It also says how to get the help of the command that was used.
    """
    from lmdeck.cli.terminal import BAD, NEXT, errors, show_line

    if type(error).__name__ == "NoArgsIsHelpError":  # a group of commands without a command: the message is its help
        typer.echo(error.format_message())
        return 2
    show_line(BAD, error.format_message(), on=errors)
    command = error.ctx.command_path if error.ctx is not None else name
    show_line(NEXT, f"Run `{command} --help`.", on=errors)
    return 2
