"""`lmdeck doctor`: one line per check, and a fix below each failure or warning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from lmdeck.cli.doctor.context import CheckResult
from lmdeck.cli.doctor.gateway_checks import run_gateway_checks
from lmdeck.cli.doctor.server_checks import run_checks
from lmdeck.cli.plain_output import echo_json
from lmdeck.cli.terminal import BAD, GOOD, NEXT, WARNING, show_line
from lmdeck.cli.testing_commands import require_extra

MARKS = {"ok": GOOD, "warning": WARNING, "failed": BAD, "skipped": ("-", "dim")}


def doctor(
    context: typer.Context,
    gateway: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check a gateway's configuration and hosts instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check the settings, the server and a model; the exit code is 1 if a check fails.

    The checks request a word, a tool call and an object from a model, which may load it.
    """
    results: list[CheckResult] = []
    for result in _checks(context, gateway):
        results.append(result)
        if not as_json:
            _show(result, width=11 if gateway is None else 16)
    is_ok = all(result.outcome != "failed" for result in results)
    if as_json:
        report = {"ok": is_ok, "checks": msgspec.to_builtins(results)}
        echo_json(report)
    raise typer.Exit(0 if is_ok else 1)


def _checks(context: typer.Context, gateway: Path | None) -> Iterator[CheckResult]:
    if gateway is not None:
        require_extra("gateway", ("uvicorn", "httptools"))
        yield from run_gateway_checks(gateway)
        return
    with context.obj.client() as lm:
        yield from run_checks(lm)


def _show(result: CheckResult, *, width: int) -> None:
    show_line(MARKS[result.outcome], " ".join(result.detail.split()), label=f"{result.check:<{width}}")
    if result.fix:
        show_line(NEXT, result.fix)
