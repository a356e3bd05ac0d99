"""The ledger by itself: leases that end, and answers that come late."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from lmdeck.batch.input_requests import BatchRequest
from lmdeck.batch.ledger import LEASE_SECONDS, InputRow, LeaseOutcome, Ledger

ENDED_WORKER = """
import os, sys
from pathlib import Path
from lmdeck.batch.ledger import Ledger

ledger = Ledger(Path(sys.argv[1]))
print(len(ledger.exchange(ledger.register(), [], [("m", 2)])[0]), flush=True)
os._exit(9)
"""


def rows(count: int) -> list[InputRow]:
    return [
        InputRow(
            line=number + 1,
            custom_id=f"{number}",
            request=BatchRequest(endpoint="/v1/chat/completions", model="m", body=b"{}", key=b"%d" % number),
        )
        for number in range(count)
    ]


def answer(request: int, text: bytes) -> LeaseOutcome:
    return LeaseOutcome(id=request, host="h", answer=text, completion_tokens=1)


def test_the_leases_of_a_lost_worker_expire(tmp_path: Path) -> None:
    """The first answer counts, and one that comes late changes nothing."""
    now = [1000.0]
    one, other = (Ledger(tmp_path / "ledger", clock=lambda: now[0]) for _ in range(2))
    one.add_rows(0, rows(2))
    first, second = one.register(), other.register()
    leased = one.exchange(first, [], [("m", 5)])[0]
    assert len(leased) == 2
    assert other.exchange(second, [], [("m", 5)]) == [[]]
    now[0] += LEASE_SECONDS - 1
    other.heartbeat(second)
    assert other.exchange(second, [], [("m", 5)]) == [[]]
    now[0] += 2
    other.heartbeat(second)
    again = other.exchange(second, [], [("m", 5)])[0]
    assert [lease.id for lease in again] == [lease.id for lease in leased]
    other.exchange(second, [answer(again[0].id, b'"second"')])
    one.exchange(first, [answer(leased[0].id, b'"late"'), answer(leased[1].id, b'"first"')])
    other.exchange(second, [answer(again[1].id, b'"late"')])
    assert [row.answer for row in one.rows()] == [b'"second"', b'"first"']
    assert (one.totals().answered, one.totals().hosts[0].completion_tokens) == (2, 2)
    assert one.is_finished()
    one.close()
    other.close()


def test_the_leases_of_a_process_that_has_ended_are_free(tmp_path: Path) -> None:
    """They are free at once, whether others work on the batch or not."""
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    ledger.add_rows(0, rows(4))
    worker = ledger.register()
    ended = subprocess.run([sys.executable, "-c", ENDED_WORKER, path], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (9, b"2\n")
    assert ledger.totals().leased == 2
    ledger.heartbeat(worker)
    assert len(ledger.exchange(worker, [], [("m", 9)])[0]) == 4
    ledger.close()
    alone = Ledger(path)
    assert alone.exchange(alone.register(), [], [("m", 9)])[0] != []
    alone.close()


def test_processes_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    """One makes the tables, and none sees an error."""
    errors: list[BaseException] = []

    def open_it() -> None:
        try:
            Ledger(tmp_path / "ledger").close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert oct((tmp_path / "ledger").stat().st_mode & 0o777) == "0o600"
