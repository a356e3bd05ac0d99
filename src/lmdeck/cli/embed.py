"""`lmdeck embed`: texts as vectors."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lmdeck.cli.plain_output import echo_json, safe, write
from lmdeck.cli.terminal import console


def embed(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="The texts; without any, each line of standard input is a text."),
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="The embedding model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn texts into vectors: one JSON list per line."""
    wanted = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not wanted:
        raise typer.BadParameter("There is no text to embed: pass texts, or write one per line to standard input.")
    with context.obj.client() as lm:
        result = lm.embed(wanted, model=model)
    if as_json:
        shown = {"model": result.model, "vectors": result.vectors}
        echo_json(shown, on_one_line=True)
        return
    for vector in result.vectors:
        write(msgspec.json.encode(vector).decode() + "\n")
    if sys.stdout.isatty():
        tokens = f" · {result.usage.prompt_tokens} tokens" if result.usage else ""
        console.print(Text(f"{safe(result.model)} · {len(result.vectors[0])} dimensions{tokens}", style="dim"))
