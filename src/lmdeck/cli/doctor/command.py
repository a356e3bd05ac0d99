"""`lmdeck doctor`: one line per check, and a fix below each failure or warning."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from lmdeck.cli.doctor.context import CheckResult
from lmdeck.cli.doctor.server_checks import run_checks
from lmdeck.cli.terminal import BAD, GOOD, NEXT, WARNING, echo_json, show_line

MARKS = {"ok": GOOD, "warning": WARNING, "failed": BAD, "skipped": ("-", "dim")}


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
    show_line(MARKS[result.outcome], " ".join(result.detail.split()), label=f"{result.check:<11}")
    if result.fix:
        show_line(NEXT, result.fix)
