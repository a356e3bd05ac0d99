"""`lmdeck doctor`: one line per check, and a fix below each failure or warning."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lmdeck.cli.doctor.context import CheckResult
from lmdeck.cli.doctor.server_checks import run_checks
from lmdeck.cli.terminal import console, echo_json, safe

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red"), "skipped": ("-", "dim")}


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the settings, the server and a model; the exit code is 1 if a check fails.

    The checks request a word, a tool call and an object from a model, which may load it.
    """
    results: list[CheckResult] = []
    with context.obj.client() as lm:
        for result in run_checks(lm):
            results.append(result)
            if not as_json:
                _show(result)
    is_ok = all(result.outcome != "failed" for result in results)
    if as_json:
        report = {"ok": is_ok, "checks": msgspec.to_builtins(results)}
        echo_json(report)
    raise typer.Exit(0 if is_ok else 1)


def _show(result: CheckResult) -> None:
    mark, style = MARKS[result.outcome]
    detail = " ".join(safe(result.detail).split())
    console.print(Text.assemble((f"{mark} ", style), (f"{result.check:<11}", "bold"), detail), soft_wrap=True)
    if result.fix:
        console.print(Text.assemble(("  → ", "cyan"), safe(result.fix)), soft_wrap=True)
