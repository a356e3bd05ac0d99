"""`lmdeck doctor`: one line a check, and below each that fails, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Literal

import msgspec
import typer
from msgspec import Struct
from rich.text import Text

from lmdeck.cli.show import console, safe
from lmdeck.cli.waiting import waiting
from lmdeck.client.clients import LMStudio
from lmdeck.errors import LMStudioError
from lmdeck.model_info import Health

__all__ = ["doctor"]

Outcome = Literal["ok", "failed", "skipped"]
MARKS = {"ok": ("✓", "green"), "failed": ("✗", "bold red"), "skipped": ("-", "dim")}


class Finding(Struct, frozen=True, kw_only=True):
    """What one check found; `fix` says what to do where it failed."""

    check: str
    outcome: Outcome
    detail: str
    fix: str = ""


class Patient(Struct, kw_only=True):
    """What the checks look at, and what earlier ones learned."""

    lm: LMStudio
    health: Health | None = None


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Check everything between you and an answer; the exit code is 1 where something is wrong."""
    findings: list[Finding] = []
    with context.obj.client() as lm:
        for finding in examine(lm):
            findings.append(finding)
            if not as_json:
                _show(finding)
    is_well = all(finding.outcome != "failed" for finding in findings)
    if as_json:
        report = {"ok": is_well, "checks": msgspec.to_builtins(findings)}
        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    raise typer.Exit(0 if is_well else 1)


def examine(lm: LMStudio) -> Iterator[Finding]:
    """Run the checks in order; once one fails, those that build on it are skipped."""
    patient, failed = Patient(lm=lm), False
    for name, check in CHECKS:
        if failed:
            yield Finding(check=name, outcome="skipped", detail="an earlier check failed")
            continue
        try:
            finding = Finding(check=name, outcome="ok", detail=check(patient))
        except LMStudioError as error:
            finding = Finding(check=name, outcome="failed", detail=error.message, fix=error.hint)
        failed = finding.outcome == "failed"
        yield finding


def _settings(patient: Patient) -> str:
    settings = patient.lm.settings
    token = "with a token" if settings.api_token else "without a token"
    return f"{patient.lm.base_url}, {token}, model {settings.model or 'not set: the loaded one'}"


def _server(patient: Patient) -> str:
    patient.health = health = patient.lm.health()
    if health.error is not None:
        raise health.error
    version = f" {health.version}" if health.version else ""
    return f"{health.product}{version} answers in {(health.latency or 0) * 1000:.0f} ms over {_api(health)}"


def _api(health: Health) -> str:
    return {"v1": "/api/v1", "v0": "/api/v0 (update LM Studio for all features)", "openai": "/v1 only", None: "?"}[
        health.api
    ]


def _models(patient: Patient) -> str:
    models = patient.lm.models.list()
    chat_models = [model for model in models if model.is_chat_model]
    if not chat_models:
        raise LMStudioError("the server has no model that answers chats", hint="Download one: `lms get qwen2.5-0.5b`.")
    return f"{len(chat_models)} for chats, {len(models) - len(chat_models)} for embeddings"


def _loaded(patient: Patient) -> str:
    loaded = patient.health.models_loaded if patient.health else []
    return ", ".join(loaded) or "none; the first request loads one, which takes a while"


def _answer(patient: Patient) -> str:
    with waiting("asking for one token"):
        reply = patient.lm.chat().user("Say yes.").with_options(max_tokens=1, temperature=0).send()
    return f"{reply.model} answered in {reply.stats.measured.total_time or 0:.2f} s"


CHECKS: tuple[tuple[str, Callable[[Patient], str]], ...] = (
    ("settings", _settings),
    ("server", _server),
    ("models", _models),
    ("loaded", _loaded),
    ("answer", _answer),
)


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.outcome]
    console.print(
        Text.assemble((f"{mark} ", style), (f"{finding.check:<10}", "bold"), safe(finding.detail)), soft_wrap=True
    )
    if finding.fix:
        console.print(Text.assemble(("  → ", "cyan"), safe(finding.fix)), soft_wrap=True)
