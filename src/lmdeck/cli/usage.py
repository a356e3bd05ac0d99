"""`lmdeck usage`: what was used, by model, key, host and day."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from lmdeck.cli.stores import ConfigPath, Json, StoreURL, chosen_store, day
from lmdeck.cli.terminal import console, echo_json, show_table
from lmdeck.gateway.store import UsageColumn, UsageRow


def usage(
    by: Annotated[
        str, typer.Option(metavar="COLUMNS", help="What to group by: one or more of day, key, model, host.")
    ] = "day,model",
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The first day: 2026-11-25, or how long ago: 7d (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="The last day, as with --since.")] = None,
    store: StoreURL = None,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Show the requests and tokens of a gateway, or of a program with `lmdeck.observe.usage`.

    Answers from the cache are requests without tokens.
    """
    columns = cast("list[UsageColumn]", [name.strip() for name in by.split(",") if name.strip()])
    with chosen_store(store, config, must_exist=True) as opened:
        rows = opened.usage(
            columns, since=None if since is None else day(since), until=None if until is None else day(until)
        )
    if as_json:
        echo_json([_for_programs(row) for row in rows])
        return
    if not any(row.requests for row in rows):
        console.print("There was no request.")
        return
    _show(columns, rows)


def _for_programs(row: UsageRow) -> dict[str, object]:
    return {
        **row.group,
        "requests": row.requests,
        "failures": row.failures,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "total_tokens": row.tokens,
        "cached_tokens": row.cached_tokens,
        "reasoning_tokens": row.reasoning_tokens,
        "seconds": round(row.seconds, 3),
    }


def _show(columns: list[UsageColumn], rows: list[UsageRow]) -> None:
    """Show a line for each group and, if there are several, the sums."""
    names = list(dict.fromkeys(columns))
    shown: list[list[str]] = [[*(row.group[name] or "–" for name in names), *_figures([row])] for row in rows]
    if len(rows) > 1:
        shown.append([*("" if number else "all" for number in range(len(names))), *_figures(rows)])
    figures = ("requests", "failed", "prompt", "answer", "tokens", "seconds")
    show_table((*names, *figures), shown, right=figures)


def _figures(rows: list[UsageRow]) -> list[str]:
    sums = [
        sum(row.requests for row in rows),
        sum(row.failures for row in rows),
        sum(row.prompt_tokens for row in rows),
        sum(row.completion_tokens for row in rows),
        sum(row.tokens for row in rows),
        round(sum(row.seconds for row in rows)),
    ]
    return [f"{each:,}" for each in sums]
