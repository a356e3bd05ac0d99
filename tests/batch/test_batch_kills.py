"""Batches that are killed, run by two processes, stopped by a full disk, or lose their host."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from batch_tools import (
    CONCURRENCY,
    BatchProcess,
    Milestones,
    answering_fake,
    asked,
    assert_answered_in_order,
    small_disk,
    texts,
    write_batch,
)

from lmdeck import LMStudio
from lmdeck.testing import Answer, FakeLMStudio
from lmdeck.testing.received_requests import SentRequest

pytestmark = pytest.mark.no_cover  # what is killed writes no figures
ROWS = int(os.environ.get("LMDECK_BATCH_ROWS", "200"))
KILLS = int(os.environ.get("LMDECK_BATCH_KILLS", "2"))
SMALL_DISK = pytest.mark.skipif(sys.platform == "win32", reason="needs a small disk, or a limit on the size of files")


def arguments(tmp_path: Path, *fakes: FakeLMStudio) -> list[str | Path]:
    hosts = [part for fake in fakes for part in ("--host", fake.base_url)]
    options = ("--out", tmp_path / "out.jsonl", "--max-concurrency", str(CONCURRENCY))
    return ["run", write_batch(tmp_path / "in.jsonl", ROWS), *options, *hosts]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_batch_is_resumed(tmp_path: Path, workers: int) -> None:
    """Each row is in the output once, in order; asked again is only what ran when a process was killed."""
    rng = random.Random(f"{workers}")
    with answering_fake() as fake:
        unique = len(set(texts(ROWS)))
        moments = sorted(rng.sample(range(2, unique - 10), KILLS))
        milestones, command = Milestones(fake), arguments(tmp_path, fake)
        running = [BatchProcess(*command) for _ in range(workers)]
        for kill, moment in enumerate(moments):
            victim = running[kill % workers]
            milestones.wait_for(moment + kill * CONCURRENCY, victim)
            victim.kill()
            running[kill % workers] = BatchProcess(*command)
        ended = [process.finish() for process in running]
        assert [done.returncode for done in ended] == [0] * workers, ended
        assert_answered_in_order(tmp_path / "out.jsonl", ROWS)
        counts = asked(fake)
        assert counts.keys() == set(texts(ROWS))
        assert counts.total() <= unique + CONCURRENCY * KILLS
        print(f"{workers} workers, {KILLS} kills: {ROWS} rows, {unique} unique, {counts.total()} asked")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".tmp") == []


KILLED_WHILE_READING = """
import os, signal, sys
import lmdeck.batch.job
from lmdeck import LMStudio
from lmdeck.batch.ledger import Ledger

lmdeck.batch.job.READ_ROWS = 100
add_rows = Ledger.add_rows

def add_some(self, start, rows):
    if start >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    add_rows(self, start, rows)

Ledger.add_rows = add_some
LMStudio().batch(sys.argv[1], out=sys.argv[2]).run()
"""


def test_a_batch_killed_while_it_reads_its_input_is_resumed(tmp_path: Path) -> None:
    """Nothing is read twice, and nothing is lost."""
    rows = 320
    source, out = write_batch(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    for read in (100, 300):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_WHILE_READING, source, out, str(read)], timeout=60, check=False
        )
        assert killed.returncode == -signal.SIGKILL
        progress = LMStudio().batch(source, out=out).progress()
        assert (progress.state, progress.rows) == ("reading", read)
    with answering_fake() as fake:
        job = fake.client().batch(source, out=out, max_concurrency=16)
        assert job.run().answered == rows
        assert len(asked(fake)) == asked(fake).total() == len(set(texts(rows)))
    assert_answered_in_order(out, rows)


def test_ctrl_c_finishes_running_requests_and_shows_how_to_continue(tmp_path: Path) -> None:
    interrupted = threading.Event()
    with answering_fake() as fake:
        command = arguments(tmp_path, fake)
        process = BatchProcess(*command)
        milestones = Milestones(fake, hold_at=20, until=interrupted)
        milestones.wait_for(20, process)
        process.send(signal.SIGINT)
        interrupted.set()
        done = process.finish()
        assert done.returncode == 130
        assert f"of {ROWS} rows have ended" in done.stderr
        assert "→ Continue with: lmdeck batch run" in done.stderr
        assert not (tmp_path / "out.jsonl").exists()
        assert BatchProcess(*command).finish().returncode == 0
        assert_answered_in_order(tmp_path / "out.jsonl", ROWS)
        assert max(asked(fake).values()) == 1


def test_a_host_that_dies_and_returns(tmp_path: Path) -> None:
    """What ran there is asked again, there or at the other host; with both away, the batch waits."""
    are_away: set[str] = set()

    def answer(name: str, request: SentRequest) -> Answer:
        fault = "reset" if name in are_away else None
        return Answer(content=f"answer to {request.last_user}", fault=fault)

    with FakeLMStudio(cuts=False) as one, FakeLMStudio(cuts=False) as other:
        one.when(lambda _: True).respond(partial(answer, "one"))
        other.when(lambda _: True).respond(partial(answer, "other"))
        milestones = Milestones(one, other)
        process = BatchProcess(*arguments(tmp_path, one, other))
        for name, fake, requests in (("one", one, 30), ("other", other, 50)):
            milestones.wait_for(requests, process)
            are_away.add(name)
            fake.close_port()
        asked_before = milestones.count
        are_away.clear()
        for fake in (one, other):
            fake._port.reopen(fake._server)
        done = process.finish()
        assert done.returncode == 0, done.stderr
        assert milestones.count > asked_before
    assert_answered_in_order(tmp_path / "out.jsonl", ROWS)


@SMALL_DISK
def test_a_disk_that_fills_up_during_a_batch(tmp_path: Path) -> None:
    """The batch stops with an error; with room, it goes on, and asks again only what ran."""
    disk = tmp_path / "disk"
    with answering_fake() as fake, small_disk(disk, max(768 << 10, 1100 * ROWS)) as make_room:
        options = ("--host", fake.base_url, "--max-concurrency", str(CONCURRENCY))
        command = ["run", write_batch(tmp_path / "in.jsonl", ROWS), "--out", disk / "out.jsonl", *options]
        full = BatchProcess(*command).finish()
        assert full.returncode == 1, full
        assert "out.jsonl.ledger cannot be written" in full.stderr
        assert "Free disk space" in full.stderr
        assert 0 < asked(fake).total() < len(set(texts(ROWS)))
        make_room()
        done = BatchProcess(*command).finish()
        assert done.returncode == 0, done.stderr
        assert_answered_in_order(disk / "out.jsonl", ROWS)
        assert asked(fake).total() <= len(set(texts(ROWS))) + CONCURRENCY


@SMALL_DISK
def test_a_disk_that_is_full_at_the_output(tmp_path: Path) -> None:
    """An earlier output is unchanged, nothing is left beside it, and no row is asked again."""
    disk = tmp_path / "disk"
    with answering_fake() as fake, small_disk(disk, 480 * ROWS) as make_room:
        (disk / "out.jsonl").write_text("earlier\n")
        options = ("--host", fake.base_url, "--ledger", tmp_path / "ledger")
        command = ["run", write_batch(tmp_path / "in.jsonl", ROWS), "--out", disk / "out.jsonl", *options]
        full = BatchProcess(*command).finish()
        if os.geteuid() == 0:
            assert full.returncode == 1, full
            assert "out.jsonl cannot be written" in full.stderr
            assert (disk / "out.jsonl").read_text() == "earlier\n"
            assert [path.name for path in disk.iterdir()] == ["out.jsonl"]
        make_room()
        assert BatchProcess(*command).finish().returncode == 0
        assert_answered_in_order(disk / "out.jsonl", ROWS)
        assert max(asked(fake).values()) == 1
