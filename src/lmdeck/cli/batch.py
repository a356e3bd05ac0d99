"""`lmdeck batch`: run a batch, show its progress, cancel it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer
from rich.align import Align
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmdeck.batch import BatchJob, BatchProgress, BatchSummary
from lmdeck.batch.batch_hosts import BatchHost
from lmdeck.batch.job import cancel as cancel_batch
from lmdeck.batch.job import ledger_of, progress_of
from lmdeck.batch.progress import RowFigures, duration
from lmdeck.cli.plain_output import echo_json, safe
from lmdeck.cli.shared_options import Model, System
from lmdeck.cli.terminal import BAD, GOOD, NEXT, WARNING, console, errors, show_line
from lmdeck.config import ClientSettings, Settings
from lmdeck.errors import ConfigurationError

SOME_ROWS_FAILED = 3
commands = typer.Typer(help="Answer many requests from a file.", rich_markup_mode=None, no_args_is_help=True)
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="The output; `.jsonl` or `.parquet`.")]
LedgerFile = Annotated[
    Path | None, typer.Option("--ledger", metavar="FILE", help="The batch's state; default: OUT.ledger.")
]
Of = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The output or the ledger of the batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("run")
def run(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="The input: `.jsonl`, `.csv`, `.tsv` or `.parquet`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The output; `.jsonl` or `.parquet`.")],
    model: Model = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A host's address, instead of the settings' server; repeatable."),
    ] = None,
    endpoint: Annotated[
        str, typer.Option(metavar="PATH", help="The endpoint of rows that name none.")
    ] = "/v1/chat/completions",
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The prompt, with {COLUMN} for a row's values.")
    ] = None,
    system: System = None,
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON Schema that every answer must match.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="The maximum number of tokens of an answer.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="NUMBER", min=0.0, help="The sampling temperature.")
    ] = None,
    dedupe: Annotated[bool, typer.Option("--dedupe/--no-dedupe", help="Send equal requests once.")] = True,
    max_concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Simultaneous requests per host; default: the host's own limit."),
    ] = None,
    attempts: Annotated[
        int, typer.Option(metavar="N", min=1, help="How often a request that fails temporarily is sent.")
    ] = 5,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send rows that ended in an error again.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Send requests from the nodes of a Ray cluster: `auto`, or its address."),
    ] = None,
    ledger: LedgerFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per second, then the summary.")
    ] = False,
) -> None:
    """Answer each row of a file, in order.

    Run it again after a crash or Ctrl-C: answered rows are not sent again. Several processes may run the same batch. The exit
    code is 3 if rows ended in an error.
    """
    options = {"max_tokens": max_tokens, "temperature": temperature}
    with context.obj.client() as lm:
        job = lm.batch(
            source,
            out=out,
            model=model,
            hosts=host or () if ray is None else _on_ray(ray, lm.settings, host or ()),
            endpoint=endpoint,
            template=template,
            system=system,
            schema=None if schema is None else _schema(schema),
            options={name: value for name, value in options.items() if value is not None},
            dedupe=dedupe,
            max_concurrency=max_concurrency,
            attempts=attempts,
            ledger=ledger,
        )
        summary = _run(job, retry_failed=retry_failed, as_json=as_json)
    if as_json:
        echo_json({"state": "finished", **msgspec.to_builtins(summary)}, on_one_line=True)
    else:
        _show_summary(summary, out)
    if not summary.is_complete:
        raise typer.Exit(SOME_ROWS_FAILED)


@commands.command("status")
def status(file: Of = None, out: Out = None, ledger: LedgerFile = None, as_json: Json = False) -> None:
    """Show the progress of a batch."""
    progress = progress_of(_ledger(file, out, ledger))
    if as_json:
        echo_json(_as_data(progress))
    else:
        console.print(_view(progress, console.width))


@commands.command("cancel")
def cancel(file: Of = None, out: Out = None, ledger: LedgerFile = None, as_json: Json = False) -> None:
    """End a batch before its last row.

    Running requests finish, rows not yet sent become error rows, and the process that runs the batch writes its output.

    `batch run` resumes a cancelled batch.
    """
    path = _ledger(file, out, ledger)
    cancel_batch(path)
    progress = progress_of(path)
    if as_json:
        echo_json(_as_data(progress))
    else:
        ended = progress.answered + progress.failed
        show_line(GOOD, f"Cancelled; {ended:,} of {progress.rows:,} rows had ended.")


def _on_ray(address: str, settings: Settings, hosts: Sequence[str]) -> Sequence[BatchHost]:
    """Return the hosts as seen from the nodes of a Ray cluster."""
    from lmdeck.batch.ray import ray_hosts

    values: dict[str, Any] = {name: getattr(settings, name) for name in settings.__struct_fields__}
    token = settings.api_token
    values["api_token"] = None if token is None else token.reveal()  # the actors need it: a Secret is not pickled
    return ray_hosts(address, cast("ClientSettings", values), hosts)


def _run(job: BatchJob, *, retry_failed: bool, as_json: bool) -> BatchSummary:
    try:
        with _reporting(as_json=as_json) as report:
            return job.run(report, retry_failed=retry_failed)
    except KeyboardInterrupt:
        progress = job.progress()
        ended = progress.answered + progress.failed
        show_line(WARNING, f"Interrupted; {ended:,} of {progress.rows:,} rows have ended.", on=errors)
        show_line(NEXT, f"Continue with: {shlex.join(['lmdeck', *sys.argv[1:]])}", on=errors)
        raise


@contextmanager
def _reporting(*, as_json: bool) -> Iterator[Callable[[BatchProgress], None]]:
    """Yield a function that shows progress.

    It prints JSON lines, updates a view in place on a terminal, or else prints lines at growing intervals.
    """
    if as_json:
        yield lambda progress: echo_json(_as_data(progress), on_one_line=True)
    elif errors.is_terminal:
        with Live(console=errors, auto_refresh=False, transient=True) as live:
            yield lambda progress: live.update(_view(progress, errors.width), refresh=True)
    else:
        yield _Lines()


class _Lines:
    """Lines of progress at intervals that double, up to a minute."""

    def __init__(self) -> None:
        self._calls = 0
        self._next = 1

    def __call__(self, progress: BatchProgress) -> None:
        self._calls += 1
        if self._calls >= self._next:
            self._next = self._calls + min(self._calls, 60)
            errors.print(str(progress), markup=False, soft_wrap=True)


def _as_data(progress: BatchProgress) -> dict[str, Any]:
    return {**msgspec.to_builtins(progress), "error_share": round(progress.error_share, 4)}


def _view(progress: BatchProgress, width: int) -> Group:
    """Return progress as a bar, a line of figures, and a line for each host."""
    if progress.state == "reading":
        return Group(Text(f"reading the input: {progress}"))
    bar = ProgressBar(max(progress.rows, 1), progress.answered + progress.failed, width=min(width, 60))
    table = Table.grid(padding=(0, 2))
    for host in progress.hosts:
        mark = Text("●", "green" if host.is_up else "red")
        tokens = f"{host.prompt_tokens + host.completion_tokens:,} tokens"
        state = f"{host.running} running" if host.is_up else "does not answer"
        failed = Text(f"{host.failed:,} failed", "red" if host.failed else "dim")
        table.add_row(mark, Text(safe(host.name)), f"{host.answered:,} rows", failed, tokens, Text(state, "dim"))
    state = "" if progress.state == "running" else f"{progress.state} · "
    return Group(Align.left(bar), Text(f"{state}{progress}"), table)  # a bar alone does not end its line


def _show_summary(summary: BatchSummary, out: Path) -> None:
    """Print the result of a batch: rows, tokens, and the slowest and failed rows."""
    show_line(
        GOOD if summary.is_complete else WARNING,
        f"{summary.answered:,} of {summary.rows:,} rows answered in {duration(summary.seconds)}, "
        f"{summary.prompt_tokens:,} + {summary.completion_tokens:,} tokens → {out}",
    )
    for host in summary.hosts if len(summary.hosts) > 1 else ():
        console.print(Text(f"    {safe(host.name)}: {host.answered:,} rows, {host.failed:,} failed"))
    if summary.slowest:
        slowest = ", ".join(f"{_name(row)} {row.seconds:.1f} s" for row in summary.slowest)
        console.print(Text(f"  slowest: {slowest}", "dim"), soft_wrap=True)
    for row in summary.failures:
        show_line(BAD, f"{_name(row)} (line {row.line}): {row.error.message if row.error else ''}")
    more = summary.failed - len(summary.failures)
    if more > 0:
        console.print(Text(f"  and {more:,} more", "dim"))
    if summary.failed:
        show_line(NEXT, "Run it again with `--retry-failed` to send the failed rows again.")


def _name(row: RowFigures) -> str:
    return safe(row.custom_id)[:40]


def _ledger(file: Path | None, out: Path | None, ledger: Path | None) -> Path:
    """Return the ledger that the options name.

    Raises:
        ConfigurationError: They name none.
    """
    if ledger is not None:
        return ledger
    named = file or out
    if named is None:
        raise ConfigurationError("No batch was named.", hint="Name its output: lmdeck batch status OUT.")
    beside = ledger_of(named)
    return named if named.exists() and not beside.exists() and named.suffix == ".ledger" else beside


def _schema(path: Path) -> dict[str, Any]:
    """Return the JSON Schema in a file.

    Raises:
        ConfigurationError: The file cannot be read, or does not contain a JSON object.
    """
    try:
        schema = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The schema {path} cannot be read: {error.strerror}.", hint="Check its name."
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(
            f"The schema {path} is not JSON: {error}.", hint="Write a JSON Schema into it."
        ) from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"The schema {path} is not a JSON object.", hint="Write a JSON Schema into it.")
    return schema
