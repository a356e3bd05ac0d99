"""`lmdeck gateway keys`, `lmdeck usage` and `lmdeck errors`, run as an operator runs them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import lmdeck.cli
from lmdeck._usage_store import FailureRecord, UsageRecord, day_of, open_store
from lmdeck.errors import ModelCrashedError, ServerUnreachableError
from lmdeck.gateway.durations import duration_text, seconds_of
from lmdeck.stats import Usage

NOW = time.time()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usage of two days and three failures."""
    path = tmp_path / "gateway.db"
    with open_store(path) as opened:
        for n, (key, model, error) in enumerate(
            [("alice", "qwen3-4b", ""), ("alice", "gemma-3-4b", ""), ("bob", "qwen3-4b", "ModelCrashedError")]
        ):
            usage = Usage(prompt_tokens=1000, completion_tokens=500 + n)
            at = NOW - 86400 * (n == 1)
            row = {"key": key, "model": model, "host": "gpu1", "usage": usage, "error": error, "seconds": 2.0}
            opened.record(UsageRecord(id=f"r{n}", at=at, **row))
        failures = [
            (ServerUnreachableError("Nothing answers at gpu1."), ""),
            (ServerUnreachableError("Nothing answers at \x1b[31mgpu2."), ""),
            (ModelCrashedError("The model has crashed.", status=500), "my failures/f2.jsonl"),
        ]
        for n, (error, cassette) in enumerate(failures):
            row = {"host": f"gpu{n}", "model": "qwen3-4b", "seconds": 1.5, "cassette": cassette}
            opened.record_failure(FailureRecord.of(error, id=f"f{n}", at=NOW + n, **row))
    return path


class Done(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Run `lmdeck ARGUMENTS` in an empty folder."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        return Done(lmdeck.cli.run(arguments), *capsys.readouterr())

    return run


def test_a_key_is_printed_once_alone_and_then_listed_without_it(run: Callable[..., Done], tmp_path: Path) -> None:
    """A script can read the key; the list shows what it may."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    created = run(
        "gateway", "keys", "create", "alice", "--models", "qwen*", "--models", "gemma*", "--rpm", "60",
        "--tokens-per-minute", "9000", "--tokens-per-day", "2000000", "--parallel", "2", "--expires", "90d", "--store", url,
    )  # fmt: skip
    assert created.returncode == 0, created.stderr
    secret = created.stdout.strip()
    assert re.fullmatch(r"lmk_[A-Za-z0-9_-]{43}", secret)
    assert "cannot be shown again" in created.stderr
    listed = run("gateway", "keys", "list", "--store", url)
    shown = " ".join(listed.stdout.split())
    for expected in ("alice", secret[:8], "60", "9,000", "2,000,000", "tokens/day", "until"):
        assert expected in shown
    assert secret not in listed.stdout + listed.stderr
    (key,) = json.loads(run("gateway", "keys", "list", "--store", url, "--json").stdout)
    assert key["models"] == ["qwen*", "gemma*"]
    assert (key["requests_per_minute"], key["tokens_per_minute"], key["tokens_per_day"], key["parallel"]) == (
        60,
        9000,
        2000000,
        2,
    )
    assert key["expires_at"] - key["created_at"] == 90 * 86400
    assert key["tokens_today"] == 0
    assert "digest" not in key


def test_a_name_is_used_once_until_its_key_is_revoked(run: Callable[..., Done], tmp_path: Path) -> None:
    """Exit codes: 2 for a name in use, 1 for a key that is not there."""
    first = json.loads(run("gateway", "keys", "create", "bob", "--json").stdout)
    again = run("gateway", "keys", "create", "bob")
    assert (again.returncode, again.stdout) == (2, "")
    assert "A key named 'bob' already exists" in again.stderr
    assert run("gateway", "keys", "revoke", "bob").returncode == 0
    missing = run("gateway", "keys", "revoke", "bob")
    assert missing.returncode == 1
    assert "no key named bob" in missing.stderr
    second = json.loads(run("gateway", "keys", "create", "bob", "--json").stdout)
    assert first["key"] != second["key"]
    assert len(json.loads(run("gateway", "keys", "list", "--json").stdout)) == 1
    assert len(json.loads(run("gateway", "keys", "list", "--all", "--json").stdout)) == 2


def test_the_configuration_names_the_store(run: Callable[..., Done], tmp_path: Path) -> None:
    """The store is found without the tokens of the hosts; an invalid table is reported with its line."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'[[hosts]]\nurl = "http://gpu1:1234"\ntoken_env = "NOT_SET"\n[store]\nurl = "sqlite:///{tmp_path}/team.db"\n'
    )
    assert run("gateway", "keys", "create", "carol", "--config", str(config)).returncode == 0
    assert (tmp_path / "team.db").exists()
    config.write_text("[store]\nurl = 5\n")
    refused = run("gateway", "keys", "list", "--config", str(config))
    assert refused.returncode == 2
    assert "line 2: store.url" in refused.stderr


@pytest.mark.parametrize("arguments", [("--expires", "90"), ("--expires", "-1d"), ("--rpm", "0"), ("--rpm", "many")])
def test_a_wrong_limit_is_named(run: Callable[..., Done], arguments: tuple[str, ...], tmp_path: Path) -> None:
    """The error names the limit, and no key is created."""
    refused = run("gateway", "keys", "create", "dave", *arguments)
    assert refused.returncode == 2
    assert not (tmp_path / "gateway.db").exists()


def test_usage_is_shown_by_any_columns(run: Callable[..., Done], store: Path) -> None:
    """Usage is printed as a table with totals, or as JSON."""
    url = str(store)
    table = run("usage", "--by", "model,key", "--store", url)
    assert table.returncode == 0, table.stderr
    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[0][:2] == ["model", "key"]
    assert ["gemma-3-4b", "alice", "1", "0", "1,000", "501", "1,501", "2"] in lines
    assert lines[-1] == ["all", "3", "1", "3,000", "1,503", "4,503", "6"]
    (alice, bob) = json.loads(run("usage", "--by", "key", "--json", "--store", url).stdout)
    assert (alice["key"], alice["requests"], alice["total_tokens"], alice["failures"]) == ("alice", 2, 3001, 0)
    assert (bob["key"], bob["failures"]) == ("bob", 1)
    today, yesterday = day_of(NOW), day_of(NOW - 86400)
    found = json.loads(run("usage", "--by", "day", "--since", today, "--json", "--store", url).stdout)
    assert [row["requests"] for row in found] == [2]
    earlier = json.loads(
        run("usage", "--by", "day", "--since", "7d", "--until", yesterday, "--json", "--store", url).stdout
    )
    assert [row["requests"] for row in earlier] == [1]
    wrong = run("usage", "--by", "user", "--store", url)
    assert wrong.returncode == 2
    assert "day, key, model, host" in wrong.stderr
    for never in ("2026-13-01", "7", "999999d"):
        assert (
            "neither a day such as 2026-11-25 nor a duration" in run("usage", "--since", never, "--store", url).stderr
        )


def test_errors_are_grouped_with_what_to_do(run: Callable[..., Done], store: Path) -> None:
    """The most frequent first; a terminal gets no control characters."""
    shown = run("errors", "--store", str(store))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.index("ServerUnreachableError 2 ×") < shown.stdout.index("ModelCrashedError 1 ×")
    assert "lms server start" in shown.stdout
    assert "lmdeck replay 'my failures/f2.jsonl'" in shown.stdout
    assert "\x1b" not in shown.stdout
    groups = json.loads(run("errors", "--json", "--store", str(store)).stdout)
    assert [(group["kind"], group["count"]) for group in groups] == [
        ("ServerUnreachableError", 2),
        ("ModelCrashedError", 1),
    ]
    newest = json.loads(run("errors", "--last", "2", "--json", "--store", str(store)).stdout)
    assert [failure["id"] for failure in newest] == ["f2", "f1"]
    assert "request f2" in run("errors", "--last", "2", "--store", str(store)).stdout


def test_a_store_that_is_not_there_is_named_and_not_created(run: Callable[..., Done], tmp_path: Path) -> None:
    """An empty table would be a lie."""
    for command in (("usage",), ("errors",), ("gateway", "keys", "list")):
        missing = run(*command)
        assert missing.returncode == 2
        assert "There is no store gateway.db" in missing.stderr
        assert "--store" in missing.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_is_reported(run: Callable[..., Done], tmp_path: Path) -> None:
    """People get a sentence, and programs get an empty list."""
    open_store(tmp_path / "gateway.db").close()
    assert "No request is stored." in run("usage").stdout
    assert "No failure is stored." in run("errors").stdout
    assert "keys create NAME" in run("gateway", "keys", "list").stdout
    assert json.loads(run("errors", "--json").stdout) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2.0), ("5m", 300.0), ("12h", 43200.0), ("90d", 7776000.0), (" 1.5 h ", 5400.0)]
)
def test_durations_have_a_unit(text: str, seconds: float) -> None:
    """A duration has days, hours, minutes or seconds."""
    assert seconds_of(text) == seconds
    assert seconds_of(duration_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-1d", "1w", "1d2h", "1e3s", "٣d", "9999999d", "nan s"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    """The error shows an example of each unit."""
    with pytest.raises(ValueError, match="a duration such as 2s, 5m, 12h or 90d"):
        seconds_of(text)
