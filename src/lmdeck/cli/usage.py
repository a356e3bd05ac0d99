"""`lmdeck usage`: requests and tokens by model, key, host and day."""

from __future__ import annotations

from typing import Annotated, cast

import msgspec
import typer

from lmdeck._usage_store import ProblemRow, UsageColumn, UsageRow
from lmdeck.cli.plain_output import echo_json
from lmdeck.cli.store_options import ConfigPath, Json, StoreURL, chosen_store, day
from lmdeck.cli.terminal import console, show_table


def usage(
    by: Annotated[
        str, typer.Option(metavar="COLUMNS", help="What to group by: one or more of day, key, model, host.")
    ] = "day,model",
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The first day: 2026-11-25, or how long ago: 7d (UTC).")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="The last day, as with --since.")] = None,
    problems: Annotated[
        bool, typer.Option("--problems", help="Show repairs and other problems of answers, by model and dialect.")
    ] = False,
    store: StoreURL = None,
    config: ConfigPath = None,
    as_json: Json = False,
) -> None:
    """Show the requests and tokens of a gateway, or of a program with `lmdeck.observe.usage`.

    Answers from the cache are requests without tokens.
    """
    columns = cast("list[UsageColumn]", [name.strip() for name in by.split(",") if name.strip()])
    first, last = None if since is None else day(since), None if until is None else day(until)
    with chosen_store(store, config, must_exist=True) as opened:
        if problems:
            _show_problems(opened.problems(since=first, until=last), as_json=as_json)
            return
        rows = opened.usage(columns, since=first, until=last)
    if as_json:
        echo_json([_for_programs(row) for row in rows])
        return
    if not any(row.requests for row in rows):
        console.print("No request is stored.")
        return
    _show(columns, rows)


def _show_problems(rows: list[ProblemRow], *, as_json: bool) -> None:
    if as_json:
        echo_json([msgspec.to_builtins(row) for row in rows])
        return
    if not rows:
        console.print("No problem is stored.")
        return
    shown = [(row.model or "–", row.code, row.dialect or "–", f"{row.count:,}") for row in rows]
    show_table(("model", "problem", "dialect", "count"), shown, right=("count",))


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
