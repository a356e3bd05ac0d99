"""The store: what is promised of it, on both databases."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmdeck._usage_store import (
    FailureRecord,
    GatewayStore,
    Key,
    KeyLimits,
    StoreError,
    UsageRecord,
    day_of,
    open_store,
)
from lmdeck._usage_store.migrations import MIGRATIONS, VERSION
from lmdeck.errors import ConfigurationError, RateLimitError, ServerUnreachableError
from lmdeck.stats import Usage

AT = 1_780_000_000.0  # 2026-05-28, in UTC


@pytest.fixture
def store(store_url: str) -> Iterator[GatewayStore]:
    with open_store(store_url) as opened:
        yield opened


def a_key(name: str = "alice", digest: str = "d1", **more: object) -> Key:
    return Key(name=name, digest=digest, start="lmk_abcd", created_at=AT, **more)


def a_record(id_: str, *, at: float = AT, prompt: int = 10, completion: int = 5, **more: object) -> UsageRecord:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    return UsageRecord(
        **{"id": id_, "at": at, "key": "alice", "model": "qwen3-4b", "host": "gpu1", "usage": usage, **more}
    )


# --- keys -----------------------------------------------------------------------------------------------------------------


def test_a_key_comes_back_as_it_was_added(store: GatewayStore) -> None:
    """A key is read with every limit, pattern and time."""
    full = a_key(
        models=("qwen*", "gemma-3-4b"),
        limits=KeyLimits(requests_per_minute=60, tokens_per_minute=9000, tokens_per_day=2_000_000, parallel=2),
        expires_at=AT + 90 * 86400,
    )
    plain = Key(name="bob", digest="d2", start="lmk_efgh", created_at=AT + 1)
    store.add_key(full)
    store.add_key(plain)
    assert store.list_keys() == [full, plain]


def test_a_name_is_free_again_once_its_key_is_revoked(store: GatewayStore) -> None:
    """A key can be replaced under the name by which its usage is counted."""
    store.add_key(a_key())
    with pytest.raises(ConfigurationError, match="A key named 'alice' already exists"):
        store.add_key(a_key(digest="d2"))
    assert store.revoke_key("alice") is True
    assert store.revoke_key("alice") is False
    store.add_key(a_key(digest="d2"))
    old, new = store.list_keys()
    assert (old.digest, new.digest) == ("d1", "d2")
    assert old.revoked_at is not None
    assert not old.is_valid(time.time())
    assert new.is_valid(time.time())


# --- usage ----------------------------------------------------------------------------------------------------------------


def test_usage_is_totalled_by_key_model_host_and_day(store: GatewayStore) -> None:
    """Usage is totalled by any of the columns, in any order, and within days."""
    records = [
        a_record("r1"),
        a_record("r2", prompt=100, completion=50, seconds=1.5, key="bob"),
        a_record("r3", model="gemma-3-4b", error="RequestTimeoutError", completion=0),
        a_record("r4", at=AT + 86400, host="gpu2"),
    ]
    for future in [store.record(record) for record in records]:
        future.result(30)
    by_key = {row.group["key"]: row for row in store.usage(["key"])}
    assert (by_key["alice"].requests, by_key["alice"].failures, by_key["alice"].tokens) == (3, 1, 40)
    assert (by_key["bob"].prompt_tokens, by_key["bob"].completion_tokens, by_key["bob"].seconds) == (100, 50, 1.5)
    both = [(row.group, row.requests) for row in store.usage(["model", "day"])]
    assert both == [
        ({"model": "gemma-3-4b", "day": day_of(AT)}, 1),
        ({"model": "qwen3-4b", "day": day_of(AT)}, 2),
        ({"model": "qwen3-4b", "day": day_of(AT + 86400)}, 1),
    ]
    assert [row.requests for row in store.usage(["host"], since=day_of(AT + 86400))] == [1]
    assert [row.requests for row in store.usage(["key"], until=day_of(AT - 1 * 86400))] == []
    (everything,) = store.usage([])
    assert (everything.requests, everything.tokens) == (4, 190)
    assert store.tokens_of_day(day_of(AT)) == {"alice": 25, "bob": 150}
    with pytest.raises(ConfigurationError, match="cannot be grouped by 'user'"):
        store.usage(["user"])


def test_problems_are_totalled_by_model_code_and_dialect(store: GatewayStore) -> None:
    """Problems are totalled within days, and counted once for each request."""
    kinds = {("repaired", "hermes-json"): 2, ("token_dropped", ""): 1}
    for id_, at in (("r1", AT), ("r1", AT), ("r2", AT + 86400)):
        store.record(a_record(id_, at=at, problem_kinds=kinds)).result(30)
    found = [(row.model, row.code, row.dialect, row.count) for row in store.problems()]
    assert found == [("qwen3-4b", "repaired", "hermes-json", 4), ("qwen3-4b", "token_dropped", "", 2)]
    assert [row.count for row in store.problems(until=day_of(AT))] == [2, 1]


def test_a_request_is_counted_once_however_often_it_is_recorded(store: GatewayStore) -> None:
    """A commit whose answer was lost is repeated; and within one transaction."""
    store.record(a_record("r1")).result(30)
    for future in [store.record(record) for record in [a_record("r1"), a_record("r1", completion=7)] * 50]:
        future.result(30)
    assert [(row.requests, row.tokens) for row in store.usage(["key"])] == [(1, 15)]


def test_a_record_comes_back_with_every_field(store: GatewayStore) -> None:
    """Records are listed with the newest first."""
    full = a_record(
        "r1", endpoint="/v1/chat/completions", status=429, queued=0.25, first_token=0.5, seconds=2.0, finish_reason="stop",
        error="RateLimitError", problems=3, cache="hit",
        usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3, cached_tokens=1, reasoning_tokens=2),
    )  # fmt: skip
    store.record(full).result(30)
    store.record(a_record("r2", at=AT + 5)).result(30)
    assert store.requests(since=AT) == [a_record("r2", at=AT + 5), full]
    assert [record.id for record in store.requests(since=AT + 1)] == ["r2"]
    assert [record.id for record in store.requests(since=0, limit=1)] == ["r2"]


def test_what_clients_and_servers_send_is_stored_whatever_it_is(store: GatewayStore) -> None:
    """NUL, lone surrogates, quotation marks, megabytes, numbers that no token count is, and no number at all."""
    hostile = "a\0b\ud800'; DROP TABLE lmdeck_keys; --%s?\u202e" + "x" * 1_000_000
    usage = Usage(prompt_tokens=-5, completion_tokens=10**30, total_tokens=0, cached_tokens=10**30)
    odd = UsageRecord(id=hostile, at=AT, key=hostile, model=hostile, host=hostile, endpoint=hostile, usage=usage,
                      seconds=float("nan"), queued=float("inf"), first_token=-1.0, finish_reason=hostile, error=hostile,
                      problems=-1, cache=hostile)  # fmt: skip
    store.record(odd).result(30)
    store.record_failure(FailureRecord(id=hostile, at=AT, kind=hostile, message=hostile, hint=hostile)).result(30)
    (record,) = store.requests(since=0)
    assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (0, 2**53)
    assert (record.seconds, record.queued, record.first_token) == (0.0, 0.0, 0.0)
    assert record.model.startswith("a\\x00b\\ud800'; DROP TABLE")
    assert len(record.model) == 300
    assert len(store.failures()) == 1
    assert store.list_keys() == []


def test_single_requests_are_removed_in_time_and_totals_stay(store_url: str) -> None:
    """Old requests are removed at the first record of an hour."""
    with open_store(store_url, keep_days=1) as store:
        store.record(a_record("old", at=AT)).result(30)
        store.record(a_record("new", at=AT + 2 * 86400)).result(30)
        assert [record.id for record in store.requests(since=0)] == ["new"]
        assert store.usage([])[0].requests == 2


# --- failures -------------------------------------------------------------------------------------------------------------


def test_the_last_thousand_failures_are_kept(store: GatewayStore) -> None:
    """Failures are listed with the newest first, and the oldest are removed."""
    futures = [
        store.record_failure(FailureRecord(id=f"f{n:04}", at=AT + n, kind="ServerError", message="m", hint="h"))
        for n in range(1010)
    ]
    for future in futures:
        future.result(60)
    found = store.failures()
    assert len(found) == 1000
    assert (found[0].id, found[-1].id) == ("f1009", "f0010")
    assert len(store.failures(limit=3)) == 3


def test_failures_are_grouped_by_kind(store: GatewayStore) -> None:
    """Each group has the message and the hint of its last failure."""
    error = RateLimitError("Too many requests for key 'bob'.", status=429)
    error.attempts, error.request_id = 2, "req_1"
    failures = [
        FailureRecord.of(ServerUnreachableError("Nothing answers at gpu1."), at=AT, host="gpu1"),
        FailureRecord.of(
            error, at=AT + 1, key="bob", model="qwen3-4b", seconds=0.5, first_token=0.1, cassette="f.jsonl"
        ),
        FailureRecord.of(ServerUnreachableError("Nothing answers at gpu2."), at=AT + 2, host="gpu2"),
    ]
    for failure in failures:
        store.record_failure(failure).result(30)
    unreachable, limited = store.failure_groups()
    assert (unreachable.kind, unreachable.count, unreachable.last.host) == ("ServerUnreachableError", 2, "gpu2")
    assert "lms server start" in unreachable.last.hint
    assert limited.last == failures[1]
    assert (limited.last.id, limited.last.status, limited.last.attempts) == ("req_1", 429, 2)


# --- many writers, and ends -----------------------------------------------------------------------------------------------


def test_threads_and_processes_lose_no_record(store_url: str) -> None:
    """Two processes with four threads each create the store at the same time and add to the same totals."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(store_url, f"p{n}", 4, 100)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with open_store(store_url) as store:
        assert [(row.requests, row.tokens) for row in store.usage([])] == [(800, 800 * 15)]


def write_many(url: str, prefix: str, threads: int, count: int) -> None:
    with open_store(url) as store:

        def write(thread: int) -> None:
            for n in range(count):
                store.record(a_record(f"{prefix}-{thread}-{n}")).result(60)

        running = [threading.Thread(target=write, args=(thread,)) for thread in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()


CONFIRMS = """
import sys, itertools
from lmdeck._usage_store import open_store, UsageRecord, Key
from lmdeck.stats import Usage
store = open_store(sys.argv[1])
for n in itertools.count():
    ids = [f"{sys.argv[2]}-{n}-{m}" for m in range(5)]
    futures = [store.record(UsageRecord(id=id, at=1780000000.0, key="alice", usage=Usage(prompt_tokens=1))) for id in ids]
    if n % 20 == 0:
        store.add_key(Key(name=ids[0], digest=ids[0], start="lmk_", created_at=0.0))
    for future in futures:
        future.result(60)
    sys.stdout.write("".join(id + chr(10) for id in ids))
    sys.stdout.flush()
"""


def test_kill_loses_nothing_that_was_confirmed(store_url: str) -> None:
    """What was confirmed is there, totals and rows agree, and the store opens at once; five times on the same store."""
    open_store(store_url).close()
    confirmed: list[str] = []
    for run in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", CONFIRMS, store_url, f"run{run}"], stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            confirmed += [program.stdout.readline().strip() for _ in range(50 + 37 * run)]
            program.send_signal(signal.SIGKILL)
            confirmed += [line.strip() for line in program.stdout if line.endswith("\n")]
    with open_store(store_url) as store:
        rows = {record.id for record in store.requests(since=0, limit=1_000_000)}
        (total,) = store.usage([])
        keys = {key.name for key in store.list_keys()}
    assert set(confirmed) <= rows
    assert total.requests == len(rows)
    assert {id_ for id_ in confirmed if id_.endswith("-0") and int(id_.split("-")[1]) % 20 == 0} <= keys


FORKS = """
import os, sys
from lmdeck._usage_store import open_store, UsageRecord
with open_store(sys.argv[1]) as store:
    store.record(UsageRecord(id="before", at=0.0)).result(30)
    child = os.fork()
    store.record(UsageRecord(id="parent" if child else "child", at=0.0)).result(30)
    if not child:
        store.usage([])
        store.close()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    store.record(UsageRecord(id="after", at=0.0)).result(30)
    print(sorted(record.id for record in store.requests(since=0)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_writes_with_its_own_thread_and_connection(store_url: str) -> None:
    """It leaves those of its parent alone, also when it ends."""
    forked = subprocess.run(
        [sys.executable, "-c", FORKS, store_url], capture_output=True, text=True, timeout=120, check=False
    )
    assert forked.returncode == 0, forked.stderr
    assert forked.stdout.split() == ["['after',", "'before',", "'child',", "'parent']"]


def test_close_writes_pending_records(store_url: str) -> None:
    """The store reports afterwards that it is closed."""
    store = open_store(store_url)
    futures = [store.record(a_record(f"r{n}")) for n in range(2000)]
    store.close()
    store.close()
    assert all(future.done() and future.exception() is None for future in futures)
    with pytest.raises(StoreError, match="is closed"):
        store.record(a_record("late")).result(5)
    store.post(a_record("later"))
    with open_store(store_url) as again:
        assert again.usage([])[0].requests == 2000


# --- stores that cannot be used -------------------------------------------------------------------------------------------


def test_a_newer_store_is_refused_with_a_sentence_and_left_alone(store_url: str) -> None:
    """It has tables that this version does not know."""
    open_store(store_url).close()
    execute(store_url, f"INSERT INTO lmdeck_schema (version) VALUES ({VERSION + 2})")
    with pytest.raises(ConfigurationError, match=f"newer lmdeck: its tables have version {VERSION + 2}") as refused:
        open_store(store_url)
    assert "Update lmdeck" in refused.value.hint


def test_an_older_store_is_brought_up_to_date_and_keeps_its_rows(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step runs once; a step that fails changes nothing."""
    with open_store(store_url) as store:
        store.record(a_record("r1")).result(30)
    broken = (*MIGRATIONS, ("ALTER TABLE lmdeck_requests ADD COLUMN team TEXT", "CREATE TABLE nonsense ("))
    monkeypatch.setattr("lmdeck._usage_store.database.VERSION", VERSION + 1)
    monkeypatch.setattr("lmdeck._usage_store.database.MIGRATIONS", broken)
    with pytest.raises(ConfigurationError, match=r"cannot be used: .*(syntax|incomplete)"):
        open_store(store_url)
    better = (*MIGRATIONS, ("ALTER TABLE lmdeck_requests ADD COLUMN team TEXT",))
    monkeypatch.setattr("lmdeck._usage_store.database.MIGRATIONS", better)
    for _ in range(2):
        with open_store(store_url) as store:
            assert [record.id for record in store.requests(since=0)] == ["r1"]
    monkeypatch.undo()
    with pytest.raises(ConfigurationError, match="newer lmdeck"):
        open_store(store_url)


def test_tables_that_are_missing_are_an_error_of_the_store(store_url: str) -> None:
    """Reads and writes raise its error, not one of the database's package."""
    with open_store(store_url) as store:
        execute(store_url, "DROP TABLE lmdeck_usage")
        with pytest.raises(StoreError, match="cannot be read"):
            store.usage([])
        if store_url.startswith("postgresql"):
            with pytest.raises(StoreError, match="refused a write"):
                store.record(a_record("r1")).result(30)


def test_foreign_tables_are_left_unchanged(store_url: str) -> None:
    """The store may share a database."""
    execute(store_url, "CREATE TABLE usage (n INTEGER)", "INSERT INTO usage VALUES (7)")
    with open_store(store_url) as store:
        store.record(a_record("r1")).result(30)
    execute(store_url, "INSERT INTO usage VALUES (8)")


def execute(url: str, *statements: str) -> None:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    else:
        import psycopg

        connection = psycopg.connect(url)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite:///", "sqlite://gateway.db", "", "  ", ":memory:", "http://x"])
def test_a_wrong_address_is_named(url: str) -> None:
    """The error shows the forms that are right."""
    with pytest.raises(ConfigurationError, match="is not valid") as refused:
        open_store(url)
    assert "postgresql://user@host/database" in refused.value.hint


# --- SQLite ---------------------------------------------------------------------------------------------------------------


def test_the_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """The write-ahead log, too, whatever the umask is."""
    before = os.umask(0)
    try:
        with open_store(tmp_path / "gateway.db") as store:
            store.record(a_record("r1")).result(30)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes.keys() >= {"gateway.db", "gateway.db-wal"}
    assert set(modes.values()) == {0o600}


def test_a_file_of_another_kind_is_reported(tmp_path: Path) -> None:
    """A missing folder, and a folder in the file's place, are reported as well."""
    (tmp_path / "notes.txt").write_text("This is not a database, and it is long enough to be looked at." * 20)
    with pytest.raises(ConfigurationError, match=r"notes\.txt cannot be read: file is not a database"):
        open_store(tmp_path / "notes.txt")
    with pytest.raises(ConfigurationError, match=r"missing/gateway\.db cannot be written: No such file"):
        open_store(tmp_path / "missing" / "gateway.db")
    with pytest.raises(ConfigurationError, match="cannot be"):
        open_store(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Whether it is found at the start or later."""
    path = tmp_path / "gateway.db"
    with open_store(path) as store:
        for n in range(500):
            store.record(a_record(f"r{n}"))
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
    path.write_bytes(content)
    with (
        pytest.raises((ConfigurationError, StoreError), match=r"gateway\.db cannot be (used|read)"),
        open_store(path) as store,
    ):
        store.requests(since=0)


def test_a_locked_file_delays_writes_and_loses_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another program may hold the lock longer than SQLite waits."""
    path = tmp_path / "gateway.db"
    with open_store(path) as store, caplog.at_level(logging.WARNING, "lmdeck.gateway"):
        store.record(a_record("r1")).result(30)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = store.record(a_record("r2"))
        assert not waiting.done()
        assert store.usage([])[0].requests == 1  # readers do not wait
        other.execute("COMMIT")
        waiting.result(60)
        other.close()
        assert store.usage([])[0].requests == 2


# --- PostgreSQL -----------------------------------------------------------------------------------------------------------


def test_writes_and_reads_go_on_after_a_lost_connection(postgres_url: str) -> None:
    """The store connects again after a restart of the server, or behind a firewall that forgets."""
    with open_store(postgres_url) as store:
        store.record(a_record("r1")).result(30)
        execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'lmdeck' AND datname = current_database()",
        )
        store.record(a_record("r2")).result(30)
        assert store.usage([])[0].requests == 2


def test_a_missing_permission_to_create_tables_is_reported(postgres_url: str) -> None:
    """Such a database is usual since PostgreSQL 15."""
    name = postgres_url.rpartition("/")[2]
    execute(postgres_url, f"CREATE ROLE guest_{name} LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(ConfigurationError, match="permission denied for schema public") as refused:
        open_store(postgres_url.replace("lmdeck@", f"guest_{name}@"))
    assert "may create tables" in refused.value.hint


def test_a_server_that_does_not_answer_or_refuses_is_named_without_the_password(postgres_address: str) -> None:
    """The message has the reason."""
    with pytest.raises(StoreError, match="does not answer") as silent:
        open_store("postgresql://someone:hush-hush@127.0.0.1:1/db")
    with pytest.raises(ConfigurationError, match=r"database .*nowhere.* does not exist") as refused:
        open_store(f"{postgres_address.replace('lmdeck@', 'lmdeck:hush-hush@')}/nowhere")
    with pytest.raises(ConfigurationError, match="is not valid"):
        open_store("postgresql://[half/db?nonsense=1")
    assert "hush" not in str(silent.value) + str(refused.value)
