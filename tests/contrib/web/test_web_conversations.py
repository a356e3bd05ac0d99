"""Conversations in a file that several threads and processes use at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmdeck import Message, Reply
from lmdeck.web.conversations import Conversations
from lmdeck.web.requests import PageQuestion
from loopback import PATIENCE


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads take turns at almost every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty")
def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    """Each store has a lock of its own, as each process has."""
    stores = [Conversations(tmp_path / "kept.sqlite3") for _ in range(4)]
    begun = stores[0].ask(PageQuestion(text="Hello"), "ada")
    assert begun is not None
    key = begun[0]
    start = threading.Barrier(len(stores))
    failed: list[Exception] = []

    def write(at: int) -> None:
        start.wait(PATIENCE)
        try:
            for number in range(20):
                stores[at].add_reply(key, Reply(content=f"{at}-{number}"))
        except Exception as error:  # shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=write, args=(at,)) for at in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    kept = stores[0].messages(key, "ada")
    assert failed == []
    assert kept is not None
    assert {message.content for message in kept} == {"Hello"} | {
        f"{at}-{number}" for at in range(4) for number in range(20)
    }


def test_an_answer_to_a_conversation_that_was_removed_is_dropped(tmp_path: Path) -> None:
    store = Conversations(tmp_path / "kept.sqlite3")
    begun = store.ask(PageQuestion(text="Hello"), "ada")
    assert begun is not None
    assert begun[1] == [Message(role="user", content="Hello")]
    assert store.remove(begun[0], "ada")
    store.add_reply(begun[0], Reply(content="Too late."))
    assert store.newest("ada") == []
    assert store.messages(begun[0], "ada") is None
