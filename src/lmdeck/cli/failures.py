"""`lmdeck errors`: recent failures, grouped by kind, each with its hint."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lmdeck._usage_store import FailureRecord
from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.store_options import ConfigPath, Json, StoreURL, chosen_store, moment
from lmdeck.cli.terminal import BAD, NEXT, console, show_line


def failures(
    last: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, max=1000, help="List the last ones, instead of the groups.")
    ] = None,
    store: StoreURL = None,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Show the failures of a gateway, or of a program with `lmdeck.observe.usage`.

    They are grouped by kind; the last 1,000 are kept. `lmdeck replay FILE` shows the recording of a failure, if there is one.
    """
    with chosen_store(store, config, must_exist=True) as opened:
        if last:
            _show_each(opened.failures(limit=last), as_json=as_json)
            return
        groups = opened.failure_groups()
    if as_json:
        echo_json([msgspec.to_builtins(group) for group in groups])
        return
    for group in groups:
        show_line(BAD, f" {group.count:,} ×, last at {moment(group.last.at)}", label=safe(group.kind))
        _show_details(group.last)
    if not groups:
        console.print("No failure is stored.")


def _show_each(found: list[FailureRecord], *, as_json: bool) -> None:
    if as_json:
        echo_json([msgspec.to_builtins(failure) for failure in found])
        return
    for failure in found:
        show_line(BAD, f" at {moment(failure.at)}, after {failure.seconds:.1f} s", label=safe(failure.kind))
        _show_details(failure)
    if not found:
        console.print("No failure is stored.")


def _show_details(failure: FailureRecord) -> None:
    console.print(Text(f"    {safe(failure.message)}"), soft_wrap=True)
    where = [
        f"{name} {safe(value)}"
        for name, value in (
            ("host", failure.host),
            ("model", failure.model),
            ("key", failure.key),
            ("request", failure.id),
        )
        if value
    ]
    console.print(Text(f"    {', '.join(where)}", style="dim"), soft_wrap=True)
    show_line(NEXT, failure.hint)
    if failure.cassette:
        show_line(NEXT, f"lmdeck replay {quote(failure.cassette)}")
