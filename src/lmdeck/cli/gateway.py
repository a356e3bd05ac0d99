"""`lmdeck gateway`: one address with repaired answers in front of many LM Studio hosts."""

from __future__ import annotations

from typing import Annotated

import typer

from lmdeck.cli.gateway_keys import commands as keys
from lmdeck.cli.store_options import ConfigPath
from lmdeck.cli.testing_commands import require_extra

commands = typer.Typer(
    help="Serve many LM Studio hosts to many users under one address.",
    no_args_is_help=True,
    subcommand_metavar="COMMAND",
)
commands.add_typer(keys, name="keys")


@commands.callback()
def gateway() -> None:
    """Serve many LM Studio hosts to many users under one address, with repaired answers."""


@commands.command("serve")
def serve(
    config: ConfigPath = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on (4000); 0 selects a free one."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, max=128, help="The number of processes.")
    ] = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    SIGHUP reads the configuration file again.
    The options override the file. Logs are JSON, on standard error.
    """
    require_extra("gateway", ("uvicorn", "httptools"))
    from lmdeck.gateway.start import become_server

    overrides = {
        name: value for name, value in {"host": host, "port": port, "workers": workers}.items() if value is not None
    }
    become_server(None if config is None else str(config), overrides)
