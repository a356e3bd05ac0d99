"""`lmdeck models`: what is on the server, and what is loaded."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from lmdeck.cli.show import console, safe, size
from lmdeck.model_info import ModelInfo

__all__ = ["models"]


def models(
    context: typer.Context,
    loaded: Annotated[bool, typer.Option("--loaded", help="Only the ones in memory.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON list.")] = False,
) -> None:
    """List the server's models."""
    with context.obj.client() as lm:
        found = lm.models.loaded() if loaded else lm.models.list()
    if as_json:
        shown = [{**msgspec.to_builtins(model), "loaded": model.loaded} for model in found]
        typer.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())
        return
    if not found:
        console.print("No model is loaded." if loaded else "The server has no models; `lms get` downloads one.")
        return
    console.print(_table(found))


def _table(found: list[ModelInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("type")
    table.add_column("size", justify="right")
    table.add_column("quant")
    table.add_column("context", justify="right")
    table.add_column("loaded")
    for model in sorted(found, key=lambda model: (not model.loaded, model.key)):
        context = model.instances[0].context_length if model.instances else model.max_context_length
        table.add_row(
            Text(safe(model.key)),
            model.type,
            size(model.size_bytes) if model.size_bytes else "",
            Text(safe(model.quantization or "")),
            str(context or ""),
            Text("✓" if model.loaded else "", style="green"),
        )
    return table
