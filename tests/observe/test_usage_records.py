"""`lmdeck.observe.usage`: the usage of one program, and the tools that can open its file."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lmdeck.observe
from lmdeck import AsyncLMStudio, LMStudio
from lmdeck._recordings.cassette import RecordedExchange, load
from lmdeck._recordings.replay import parse_exchange
from lmdeck._usage_store import open_store
from lmdeck.errors import LMStudioError
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE


def test_each_answer_is_a_record(tmp_path: Path) -> None:
    """Whole and streamed answers are recorded with tokens and times; a model list is not."""
    with FakeLMStudio() as fake:
        fake.reply("Hello")
        fake.reply("World")
        with LMStudio(base_url=fake.base_url) as lm, lmdeck.observe.usage(lm, tmp_path / "usage.db", key="job"):
            first = lm.chat().user("Hi").send()
            with lm.chat().user("Hi").stream() as stream:
                for _ in stream:
                    pass
            lm.models.list()
            lm.embed("text")
        host = fake.base_url.removeprefix("http://")
    with open_store(tmp_path / "usage.db") as store:
        *embedded, streamed, whole = store.requests(since=0)
    assert (whole.usage, whole.model, whole.key) == (first.usage, first.model, "job")
    assert (whole.endpoint, whole.finish_reason, whole.status) == ("/v1/chat/completions", "stop", 200)
    assert whole.host == host
    assert streamed.first_token is not None
    assert 0 < streamed.first_token <= streamed.seconds
    assert [record.endpoint for record in embedded] == ["/v1/embeddings"]


async def test_it_works_for_the_async_client_and_many_answers_at_once(tmp_path: Path) -> None:
    """None is lost, and closing waits for the last."""
    with FakeLMStudio() as fake:
        for n in range(50):
            fake.reply(f"Answer {n}")
        async with AsyncLMStudio(base_url=fake.base_url) as lm:
            with lmdeck.observe.usage(lm, tmp_path / "usage.db"):
                await asyncio.gather(*(lm.chat().user("Hi").send() for _ in range(50)))
    with open_store(tmp_path / "usage.db") as store:
        assert store.usage([])[0].requests == 50


def test_failures_and_answers_that_are_left_are_recorded(tmp_path: Path) -> None:
    """The first with what to do, the second with the chunks that came."""
    with FakeLMStudio() as fake:
        fake.fail("reset", after_chunks=2)
        fake.reply("One two three four five six seven eight nine ten", tokens_per_second=20)
        with (
            LMStudio(base_url=fake.base_url, retry_attempts=1) as lm,
            lmdeck.observe.usage(lm, tmp_path / "usage.db") as records,
        ):
            with pytest.raises(LMStudioError) as caught, lm.chat().user("Hi").stream() as stream:
                for _ in stream:
                    pass
            with lm.chat().user("Hi").stream() as stream:
                next(iter(stream))
            with contextlib.suppress(LMStudioError):
                lm.models.get("no-such-model")
            assert records.store.label.endswith("usage.db")
    with open_store(tmp_path / "usage.db") as store:
        left, failed = store.requests(since=0)
        failures = store.failures()
    kind = type(caught.value).__name__
    assert (failed.error, left.error, left.finish_reason) == (kind, "", "abandoned")
    assert left.usage.completion_tokens > 0
    assert failures[-1].kind == kind
    assert failures[-1].hint == caught.value.hint
    assert failures[-1].endpoint == "/v1/chat/completions"


def test_a_failure_does_not_quote_the_answer(tmp_path: Path) -> None:
    with FakeLMStudio() as fake, LMStudio(base_url=fake.base_url) as lm:
        fake.body("<html>my diary</html>")
        with lmdeck.observe.usage(lm, tmp_path / "usage.db"), pytest.raises(LMStudioError, match="my diary"):
            lm.chat().user("Hi").send()
    with open_store(tmp_path / "usage.db") as store:
        (failure,) = store.failures()
    assert failure.kind == "MalformedStreamError"
    assert "diary" not in failure.message
    assert failure.hint


def test_nothing_is_recorded_after_close(tmp_path: Path) -> None:
    """The client goes on."""
    with FakeLMStudio() as fake, LMStudio(base_url=fake.base_url) as lm:
        fake.reply("One")
        fake.reply("Two")
        records = lmdeck.observe.usage(lm, str(tmp_path / "usage.db"))
        lm.chat().user("Hi").send()
        records.close()
        records.close()
        lm.chat().user("Hi").send()
    with open_store(tmp_path / "usage.db") as store:
        assert store.usage([])[0].requests == 1


KILLED = """
import os, signal, sys
import lmdeck, lmdeck.observe
with lmdeck.LMStudio(base_url=sys.argv[1]) as lm:
    records = lmdeck.observe.usage(lm, sys.argv[2])
    lm.chat().user("Hi").send()
    records.store.record_failure(lmdeck._usage_store.FailureRecord(id="f", at=0.0, kind="k", message="", hint="")).result(60)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_survives_kill(tmp_path: Path) -> None:
    """The file is whole, and the next program goes on with it."""
    with FakeLMStudio() as fake:
        fake.reply("One")
        killed = subprocess.run([sys.executable, "-c", KILLED, fake.base_url, str(tmp_path / "usage.db")], check=False)
        assert killed.returncode == -9
    with open_store(tmp_path / "usage.db") as store:
        assert store.usage([])[0].requests == 1


FORGOTTEN = """
import sys
import lmdeck, lmdeck.observe
lm = lmdeck.LMStudio(base_url=sys.argv[1])
lmdeck.observe.usage(lm, sys.argv[2])
for _ in range(3):
    lm.chat().user("Hi").send()
"""


def test_the_end_of_the_program_writes_the_last_rows(tmp_path: Path) -> None:
    """The program closes nothing itself."""
    with FakeLMStudio() as fake:
        fake.when(lambda _: True).reply("One")
        command = [sys.executable, "-c", FORGOTTEN, fake.base_url, str(tmp_path / "usage.db")]
        subprocess.run(command, check=True, timeout=PATIENCE)
    with open_store(tmp_path / "usage.db") as store:
        assert store.usage([])[0].requests == 3


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` works, since it is not an import error."""
    assert not hasattr(lmdeck.observe, "nothing")
    assert callable(lmdeck.observe.usage)
    assert callable(lmdeck.observe.usage)  # also after its module was imported


# --- other tools ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    with (
        FakeLMStudio() as fake,
        LMStudio(base_url=fake.base_url) as lm,
        lmdeck.observe.usage(lm, tmp_path / "usage.db"),
    ):
        for text in ("One", "Two", "Three"):
            fake.reply(text)
            lm.chat().user("Hi").send()
    return tmp_path / "usage.db"


def test_pandas_and_duckdb_read_it(recorded: Path) -> None:
    """The statements of the documentation work; DuckDB reads the frame, since its SQLite reader needs a download."""
    import duckdb
    import pandas as pd

    with contextlib.closing(sqlite3.connect(recorded)) as connection:
        requests = pd.read_sql("SELECT * FROM lmdeck_requests", connection)
        usage = pd.read_sql("SELECT * FROM lmdeck_usage", connection)
    requests["ended_at"] = pd.to_datetime(requests["ended_at"], unit="s", utc=True)
    assert len(requests) == 3
    assert requests.groupby("model")["completion_tokens"].sum().sum() == usage["completion_tokens"].sum() > 0
    assert duckdb.sql("SELECT sum(requests) FROM usage").fetchall() == [(3,)]
    assert duckdb.sql("SELECT quantile_cont(first_token, 0.95) FROM requests").fetchall()[0][0] > 0


# --- recordings of failures -----------------------------------------------------------------------------------------------


def ask(lm: LMStudio, *, streams: bool) -> None:
    chat = lm.chat().user("My prompt")
    for _ in chat.stream() if streams else [chat.send()]:
        pass


def fail_once(fake: FakeLMStudio, folder: Path, fault: str, *, streams: bool = True, **options: Any) -> str:
    """Ask a client with a recorder, which fails; return the path that the failure names."""
    recorder = lmdeck.observe.RecordFailures(folder / "failures")
    fake.fail(fault, **options)
    settings = {"base_url": fake.base_url, "api_token": "sk-lm-abcdefgh:12345678", "retry_attempts": 1}
    with (
        LMStudio(handlers=[recorder], **settings) as lm,
        lmdeck.observe.usage(lm, folder / "usage.db", recorder=recorder),
        pytest.raises(LMStudioError),
    ):
        ask(lm, streams=streams)
    with open_store(folder / "usage.db") as store:
        (failure,) = store.failures()
    return failure.cassette


@pytest.mark.parametrize(
    ("fault", "options"),
    [("reset", {"after_chunks": 2}), ("cut", {"after_chunks": 1}), ("context_overflow_tokens_to_keep", {})],
)
@pytest.mark.parametrize("streams", [True, False])
def test_a_failure_has_a_recording_that_fails_the_same_way(
    tmp_path: Path, fault: str, options: dict[str, int], streams: bool
) -> None:
    """It has the request without secrets, and the bytes that came; only the owner can read it."""
    with FakeLMStudio() as fake:
        path = Path(fail_once(fake, tmp_path, fault, streams=streams, **options))
    (exchange,) = load(path)
    assert exchange.request["messages"] == [{"role": "user", "content": "My prompt"}]
    assert b"12345678" not in path.read_bytes()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    with open_store(tmp_path / "usage.db") as store:
        (failure,) = store.failures()
    assert exchange.ended.startswith(failure.kind)
    assert parse_exchange(exchange).error is not None
    if fault.startswith("context"):
        assert type(parse_exchange(exchange).error).__name__ == failure.kind == "ContextLengthError"
    elif streams:
        assert exchange.pieces


def test_only_failures_are_recorded_and_old_ones_removed(tmp_path: Path) -> None:
    """A complete answer leaves nothing, and neither does a list of models."""
    recorder = lmdeck.observe.RecordFailures(tmp_path / "failures", keep=2)
    with FakeLMStudio() as fake, LMStudio(base_url=fake.base_url, handlers=[recorder], retry_attempts=1) as lm:
        fake.reply("Hello")
        lm.chat().user("Hi").send()
        lm.models.list()
        assert not (tmp_path / "failures").exists()
        for n in range(60):
            recorder.write(f"req_{n}", RecordedExchange(method="POST", path="/v1/chat/completions"))
    assert len(list((tmp_path / "failures").iterdir())) < 60
    assert recorder.path_of("../../etc/passwd") == str(tmp_path / "failures" / ".._.._etc_passwd.jsonl")


def test_a_recording_that_cannot_be_written_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets the error of the request; the log has the reason."""
    (tmp_path / "failures").write_text("a file in the place of the folder")
    with FakeLMStudio() as fake, caplog.at_level("WARNING", "lmdeck.observe"):
        assert fail_once(fake, tmp_path, "reset", after_chunks=1).endswith(".jsonl")
    assert "could not be recorded" in caplog.text
