"""`lmdeck doctor`: one line a check, and below each that is not well, what to do."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.text import Text

from lmdeck.cli.doctor.context import Finding
from lmdeck.cli.doctor.server_checks import examine
from lmdeck.cli.terminal import console, echo_json, safe

__all__ = ["doctor"]

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red"), "skipped": ("-", "dim")}


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Check everything between you and an answer; the exit code is 1 where something is wrong.

    A model is asked for a word, a tool call and an object, so one may be loaded for it.
    """
    findings: list[Finding] = []
    with context.obj.client() as lm:
        for finding in examine(lm):
            findings.append(finding)
            if not as_json:
                _show(finding)
    is_well = all(finding.outcome != "failed" for finding in findings)
    if as_json:
        report = {"ok": is_well, "checks": msgspec.to_builtins(findings)}
        echo_json(report)
    raise typer.Exit(0 if is_well else 1)


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.outcome]
    detail = " ".join(safe(finding.detail).split())
    console.print(Text.assemble((f"{mark} ", style), (f"{finding.check:<11}", "bold"), detail), soft_wrap=True)
    if finding.fix:
        console.print(Text.assemble(("  → ", "cyan"), safe(finding.fix)), soft_wrap=True)
