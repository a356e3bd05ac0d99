"""`lmdeck fake`, `record`, `replay` and `verdict`: test applications without LM Studio.

The applications may be in any language.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.shared_options import AllowedHost, ListenHost, ListenPort
from lmdeck.cli.terminal import BAD, GOOD, NEXT, WARNING, console, errors, show_error, show_line, show_table, size
from lmdeck.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck._recordings.cassette import RecordedExchange
    from lmdeck._recordings.replay import ParsedExchange
    from lmdeck.testing.received_requests import SentRequest
    from lmdeck.testing.verdict import Outcome, Repaired, Trial

STYLES = {"survived": "green", "reported": "cyan", "wrong answer": "bold red", "crashed": "red", "hung": "magenta"}
SHOWN_CHARS = 100
OUTPUT_CHARS = 40


def require_extra(extra: str = "testing", packages: Sequence[str] = ("uvicorn",)) -> None:
    """Check that the packages of a server are installed.

    Raises:
        ConfigurationError: A package is missing; the hint names the extra to install.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"This command needs the package {missing[0]}, which is not installed.",
            hint=f'Install it with `pip install "lmdeck[{extra}]"`.',
        )


def fake(
    scenario: Annotated[
        Path | None,
        typer.Argument(metavar="[SCENARIO]", help="A scenario file (TOML); without one, the fake echoes each prompt."),
    ] = None,
    host: ListenHost = "127.0.0.1",
    port: ListenPort = 1234,
    allowed_host: AllowedHost = None,
    faults: Annotated[bool, typer.Option("--faults", help="List the faults and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print requests, or faults, as JSON.")] = False,
) -> None:
    """Serve a fake LM Studio with scripted answers and faults, until Ctrl-C.

    A scenario has [[answer]] tables with one of reply, tool_call = {name, arguments}, json, error = 503, fail = "reset",
    from_schema = true; and optionally when = "words of the prompt", reasoning, dialect, after_chunks, tokens_per_second.
    """
    require_extra()
    if faults:
        _list_faults(as_json=as_json)
        return
    from lmdeck.server.serve import wait_until_stopped
    from lmdeck.testing.scenario import Scenario, load_scenario

    script = Scenario() if scenario is None else load_scenario(scenario)
    server = script.fake(host=host, port=port, allowed_hosts=allowed_host or ())

    def show(request: SentRequest) -> None:
        if as_json:
            echo_json(request, on_one_line=True)
        else:
            console.print(Text(safe(f"  {request}")), soft_wrap=True)

    server.on_request(show)
    server.start(as_fake=True)
    if not as_json:
        show_line(GOOD, f"a fake LM Studio at {server.base_url} (Ctrl-C stops)")
        show_line(("", ""), Text(f" base URL of OpenAI clients: {server.base_url}/v1", style="dim"))
    wait_until_stopped()
    server.close()


def _list_faults(*, as_json: bool) -> None:
    from lmdeck.testing.faults import FAULTS

    if as_json:
        rows = [
            {"name": name, "summary": each.summary, "expect": each.expect, "options": each.options}
            for name, each in FAULTS.items()
        ]
        echo_json(rows)
        return
    table: list[tuple[str | Text, ...]] = []
    for name, each in FAULTS.items():
        options = "".join(f" {option}={default}" for option, default in each.options.items())
        expected = "gets the answer" if each.expect == "right" else "reports an error"
        table.append((Text.assemble(name, (options, "dim")), each.summary, expected))
    show_table(("fault", "what happens", "a good client"), table, unnamed=("what happens",))


def record(
    upstream: Annotated[
        str, typer.Option(metavar="URL", help="The server to forward requests to.")
    ] = "http://localhost:1234",
    to: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, one exchange per line.")] = Path(
        "cassette.jsonl"
    ),
    host: ListenHost = "127.0.0.1",
    port: ListenPort = 1235,
    allowed_host: AllowedHost = None,
) -> None:
    """Record the traffic between your application and LM Studio, without tokens, until Ctrl-C."""
    require_extra()
    from lmdeck._incoming.trust import AllowedHosts
    from lmdeck._recordings.cassette import WHOLE
    from lmdeck._recordings.recorder import Recorder
    from lmdeck.server.serve import run
    from lmdeck.server.sockets import listen

    def show(exchange: RecordedExchange) -> None:
        ended = "" if exchange.ended == WHOLE else f" ({exchange.ended})"
        line = f"  {exchange.method} {exchange.path} → {exchange.status}, {size(len(exchange.body))}{ended}"
        console.print(Text(safe(line)), soft_wrap=True)

    recorder = Recorder(upstream, to, show, on_lost=show_error, hosts=AllowedHosts.of(allowed_host or (), host))
    with listen(host, port) as listener:
        run(
            recorder,
            listener,
            lambda url: show_line(GOOD, f"recorder at {url} for {upstream}, writing to {to} (Ctrl-C stops)"),
        )
    lost = f"; {recorder.lost} could not be written" if recorder.lost else ""
    console.print(Text(safe(f"{recorder.count} exchanges in {to}{lost}")), soft_wrap=True)
    raise typer.Exit(1 if recorder.lost else 0)


def replay(
    cassette: Annotated[Path, typer.Argument(metavar="CASSETTE", help="A recording made by `lmdeck record`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Parse a recording again, offline, and show the results.

    The exit code is 1 if an answer has an error.
    """
    from lmdeck._recordings.cassette import load
    from lmdeck._recordings.replay import parse_exchange

    def warn(what: str) -> None:
        show_line(WARNING, what, on=errors)

    is_good = True
    for exchange in load(cassette, warn):
        parsed = parse_exchange(exchange)
        is_good = is_good and parsed.error is None
        if as_json:
            echo_json(_as_row(parsed), on_one_line=True)
        else:
            _show(parsed)
    raise typer.Exit(0 if is_good else 1)


def _as_row(parsed: ParsedExchange) -> dict[str, object]:
    exchange, reply, error = parsed.exchange, parsed.reply, parsed.error
    return {
        "request": f"{exchange.method} {exchange.path}",
        "status": exchange.status,
        "error": None
        if error is None
        else {"type": type(error).__name__, "message": error.message, "hint": error.hint},
        "reply": None if reply is None else reply.to_dict(),
        "problems": [] if reply is None else msgspec.to_builtins(reply.problems),
    }


def _show(parsed: ParsedExchange) -> None:
    exchange, reply, error = parsed.exchange, parsed.reply, parsed.error
    label = _short(safe(f"{exchange.method} {exchange.path}"))
    show_line(GOOD if error is None else BAD, f" → {exchange.status}", label=label)
    if error is not None:
        show_line((" ", ""), f"{type(error).__name__}: {error.message}")
        show_line(NEXT, error.hint)
    if reply is None:
        return
    for name, text in (("reasoning", reply.reasoning), ("content", reply.content)):
        if text:
            console.print(Text.assemble((f"  {name:<10}", "dim"), safe(_short(text))), soft_wrap=True)
    for call in reply.tool_calls:
        console.print(Text.assemble(("  tool call ", "dim"), safe(f"{call.name}({_short(call.raw_arguments)})")))
    for problem in reply.problems:
        console.print(Text.assemble(("  problem   ", "yellow"), safe(f"{problem.code}: {_short(problem.detail)}")))


def _short(text: str, limit: int = SHOWN_CHARS) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def verdict(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- PROGRAM [ARGUMENT]...", help="The program to run: lmdeck verdict -- python my_app.py"
        ),
    ],
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The answers of the fake (TOML), as for `lmdeck fake`.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="The time after which a run counts as hung.")
    ] = 20.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Test only this fault; repeatable. `lmdeck fake --faults` lists them."),
    ] = None,
    repaired: Annotated[bool, typer.Option(help="Also run it with repaired answers, as under `lmdeck run`.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a program under each fault, with and without lmdeck's repair, and report the results.

    The exit code is 1 if the program as it is hangs, crashes or prints a wrong answer.
    """
    require_extra()
    from lmdeck.testing.faults import FAULTS, find_fault
    from lmdeck.testing.scenario import Scenario, load_scenario
    from lmdeck.testing.verdict import baseline, try_faults

    names = [find_fault(name).name for name in fault or FAULTS]
    script = Scenario() if scenario is None else load_scenario(scenario)
    _report_progress("running the program without a fault")
    expected = baseline(command, script, timeout)
    with_repair = baseline(command, script, timeout, repaired=True) if repaired else None
    trials: list[Trial] = []
    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), console=errors, transient=True,
        disable=not errors.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("faults", total=len(names))
        for trial in try_faults(command, script, expected, timeout=timeout, faults=names, repaired=with_repair):
            trials.append(trial)
            progress.update(task, advance=1, description=trial.fault)
            _report_progress(f"{len(trials)}/{len(names)} {trial.fault}: {trial.outcome}")
    is_good = all(trial.is_right for trial in trials)
    if as_json:
        report = {"ok": is_good, "expected": expected, "trials": msgspec.to_builtins(trials)}
        if with_repair is not None:
            report |= {"repaired_ok": _are_right(trials), "repaired_expected": with_repair}
        echo_json(report)
    else:
        _show_trials(trials)
    raise typer.Exit(0 if is_good else 1)


def _report_progress(what: str) -> None:
    """Print a line on standard error if no progress bar can be shown there."""
    if not errors.is_terminal:
        errors.print(Text(safe(what)), soft_wrap=True)


def _are_right(trials: list[Trial]) -> bool:
    """Whether every trial is right with repaired answers."""
    return all(trial.repaired is not None and trial.repaired.is_right for trial in trials)


def _show_trials(trials: list[Trial]) -> None:
    is_repaired = any(trial.repaired is not None for trial in trials)
    headers = ("fault", "as it is", *(("with lmdeck run",) if is_repaired else ()), "last output")
    rows: list[tuple[str | Text, ...]] = []
    for trial in trials:
        last = _short((trial.output.strip().splitlines() or [""])[-1], OUTPUT_CHARS)
        repaired = [_outcome(trial.repaired)] if trial.repaired is not None else []
        rows.append((trial.fault, _outcome(trial), *repaired, Text(safe(last), "dim")))
    show_table(headers, rows)
    console.print(_counts("as it is", [trial.outcome for trial in trials]))
    if is_repaired:
        console.print(_counts("with lmdeck run", [trial.repaired.outcome for trial in trials if trial.repaired]))


def _outcome(trial: Trial | Repaired) -> Text:
    mark, style = GOOD if trial.is_right else BAD
    return Text.assemble(
        (f"{mark} ", style), (trial.outcome, STYLES[trial.outcome]), (f" {trial.seconds:.1f} s", "dim")
    )


def _counts(what: str, outcomes: list[Outcome]) -> Text:
    counts = {outcome: sum(each == outcome for each in outcomes) for outcome in STYLES}
    shown = " · ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    return Text(f"{what}: {shown}", style="bold")
