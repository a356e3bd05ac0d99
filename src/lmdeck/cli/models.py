"""`lmdeck models` and `lmdeck ps`: list, load, unload and download models."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.terminal import GOOD, console, errors, show_line, show_table, size
from lmdeck.cli.waiting import waiting
from lmdeck.model_info import DownloadJob, ModelInfo

commands = typer.Typer(
    help="List, load, unload and download models.", invoke_without_command=True, rich_markup_mode=None
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.callback()
def models(
    context: typer.Context,
    loaded: Annotated[bool, typer.Option("--loaded", help="List only loaded models.")] = False,
    as_json: Json = False,
) -> None:
    """List the server's models, or change what is loaded."""
    if context.invoked_subcommand is not None:
        return
    with context.obj.client() as lm:
        found = lm.models.loaded() if loaded else lm.models.list()
    if as_json:
        echo_json([{**msgspec.to_builtins(model), "loaded": model.loaded} for model in found])
        return
    if not found:
        console.print(
            "No model is loaded." if loaded else "The server has no models; `lmdeck models get` downloads one."
        )
        return
    _show_models(found)


@commands.command("load")
def load(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as `lmdeck models` names it.")],
    context_length: Annotated[int | None, typer.Option(metavar="TOKENS", help="The context length.", min=1)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Load another instance even if a suitable one is loaded.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Load a model into memory.

    Nothing is done if a suitable instance is loaded.
    """
    options = {} if context_length is None else {"context_length": context_length}
    with context.obj.client() as lm, waiting(f"loading {safe(key)} …"):
        loaded = lm.models.load(key, force=force, **options)
    if as_json:
        echo_json(msgspec.to_builtins(loaded))
        return
    took = f" in {loaded.load_time:.1f} s" if loaded.load_time else ""
    show_line(GOOD, f"{loaded.instance_id} is loaded{took}")


@commands.command("unload")
def unload(
    context: typer.Context,
    instance: Annotated[
        str | None, typer.Argument(metavar="[INSTANCE]", help="The instance, as `lmdeck ps` names it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Unload all instances.")] = False,
    as_json: Json = False,
) -> None:
    """Unload a model from memory."""
    if (instance is None) != every:
        raise typer.BadParameter("Name one instance, or use --all.")
    with context.obj.client() as lm:
        named = [one.id for model in lm.models.loaded() for one in model.instances] if instance is None else [instance]
        unloaded = [lm.models.unload(name) for name in named]
    if as_json:
        echo_json(unloaded)
        return
    for name in unloaded:
        show_line(GOOD, f"{name} is unloaded")
    if not unloaded:
        console.print("No model is loaded.")


@commands.command("get")
def get(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model of LM Studio's catalogue, or a Hugging Face address.")
    ],
    quantization: Annotated[str | None, typer.Option(metavar="NAME", help="The quantization, such as Q4_K_M.")] = None,
    as_json: Json = False,
) -> None:
    """Download a model.

    After Ctrl-C, LM Studio continues the download.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=errors, transient=True, disable=not errors.is_terminal,
    )  # fmt: skip
    with context.obj.client() as lm, bar:
        task = bar.add_task(safe(model), total=None)

        def show(job: DownloadJob) -> None:
            bar.update(
                task, completed=job.downloaded_bytes or 0, total=job.total_size_bytes, description=safe(job.status)
            )

        job = lm.models.download(model, quantization, on_progress=show)
    if as_json:
        echo_json(msgspec.to_builtins(job))
        return
    outcome = "was already downloaded" if job.status == "already_downloaded" else "is downloaded"
    show_line(GOOD, f"{model} {outcome}")


def ps(context: typer.Context, as_json: Json = False) -> None:
    """List the loaded models, one line per instance."""
    with context.obj.client() as lm:
        found = lm.models.loaded()
    rows = [(model, instance) for model in found for instance in model.instances]
    if as_json:
        echo_json([{"model": model.key, **msgspec.to_builtins(instance)} for model, instance in rows])
        return
    if not rows:
        console.print("No model is loaded.")
        return
    shown = [
        (
            instance.id,
            model.key,
            size(model.size_bytes) if model.size_bytes else "",
            str(instance.context_length or ""),
            str(instance.parallel or ""),
        )
        for model, instance in rows
    ]
    right = ("size", "context", "parallel")
    show_table(("instance", "model", "size", "context", "parallel"), shown, right=right, unnamed=("size",))


def _show_models(found: list[ModelInfo]) -> None:
    rows = []
    for model in sorted(found, key=lambda model: (not model.loaded, model.key)):
        context = model.instances[0].context_length if model.instances else model.max_context_length
        size_ = size(model.size_bytes) if model.size_bytes else ""
        loaded = Text("✓" if model.loaded else "", style="green")
        rows.append((model.key, model.type, size_, model.quantization or "", str(context or ""), loaded))
    headers = ("model", "type", "size", "quant", "context", "loaded")
    show_table(headers, rows, right=("size", "context"), unnamed=("type", "size", "quant"))
