"""`lmdeck gateway`: one address with repaired answers in front of many LM Studio hosts."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from lmdeck.cli.gateway_keys import commands as keys
from lmdeck.cli.store_options import ConfigPath
from lmdeck.cli.terminal import GOOD, console, show_line
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
    require_extra("gateway", ("starlette", "uvicorn", "httptools"))
    import msgspec

    from lmdeck.gateway.config import Config
    from lmdeck.gateway.logs import log_as_json
    from lmdeck.gateway.serve import serve as run

    loaded = Config.load(config)
    given = {
        name: value for name, value in {"host": host, "port": port, "workers": workers}.items() if value is not None
    }
    loaded = msgspec.structs.replace(loaded, server=msgspec.structs.replace(loaded.server, **given))

    def show_url(url: str) -> None:
        show_line(GOOD, f"gateway at {url} (Ctrl-C stops)")
        console.print(
            Text(f"  base URL of OpenAI clients: {url}/v1, of Anthropic clients: {url}", style="dim"), soft_wrap=True
        )

    log_as_json()
    raise typer.Exit(run(loaded, None if config is None else str(config), show_url))
