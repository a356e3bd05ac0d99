"""The four ways to ask, as one: sync and async, streamed and not; and a watch over what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lmdeck
from lmdeck import AsyncLMStudio, LMStudio, LMStudioError, Reply
from lmdeck.testing import FakeLMStudio, SentRequest
from loopback import PATIENCE

__all__ = ["SETTINGS", "WAYS", "Way", "alm", "last_asked", "lm", "nothing_left_behind", "until"]

SETTINGS: dict[str, Any] = {
    "model": "m",
    "timeout": 2 * PATIENCE,
    "first_token_timeout": 2 * PATIENCE,
    "connect_timeout": 2 * PATIENCE,
    "retry_attempts": 1,
    "retry_delay": 0.001,
}


def lm(url: str, **settings: Any) -> LMStudio:
    """Make a sync client that asks once."""
    return LMStudio(**{"base_url": url, **SETTINGS, **settings})


def alm(url: str, **settings: Any) -> AsyncLMStudio:
    """Make an async client that asks once."""
    return AsyncLMStudio(**{"base_url": url, **SETTINGS, **settings})


@dataclass(frozen=True)
class Way:
    """One of the ways to ask."""

    is_async: bool
    is_streamed: bool

    def ask(self, url: str, text: str = "Hi", **settings: Any) -> Reply:
        """Ask a new client once and give the reply."""
        if self.is_async:
            return asyncio.run(self._ask_async(url, text, settings))
        with lm(url, **settings) as client:
            chat = client.chat().user(text)
            if not self.is_streamed:
                return chat.send()
            with chat.stream() as stream:
                return stream.until_done()

    def fail(self, url: str, **settings: Any) -> LMStudioError:
        """Ask, and return the error, which must be complete and come before a limit that the test did not set."""
        started = time.monotonic()
        with pytest.raises(LMStudioError) as caught:
            self.ask(url, **settings)
        assert time.monotonic() - started < PATIENCE
        error = caught.value
        assert error.message
        assert error.hint
        assert str(error) == f"{error.message} {error.hint}"
        assert error.url == f"{url}/v1/chat/completions"
        assert error.request_id is not None
        assert error.request_id.startswith("req_")
        assert error.attempts == settings.get("retry_attempts", 1)
        return error

    async def _ask_async(self, url: str, text: str, settings: dict[str, Any]) -> Reply:
        async with alm(url, **settings) as client:
            chat = client.chat().user(text)
            if not self.is_streamed:
                return await chat.send()
            async with chat.stream() as stream:
                return await stream.until_done()

    def __str__(self) -> str:
        return f"{'async' if self.is_async else 'sync'}-{'stream' if self.is_streamed else 'send'}"


WAYS = [Way(is_async, is_streamed) for is_async in (False, True) for is_streamed in (False, True)]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def last_asked(fake: FakeLMStudio) -> SentRequest:
    """Return the last request for an answer: sites, gateways and pages ask for the list of models at any time."""
    return [request for request in fake.requests if request.wants_answer][-1]


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail where more sockets or threads are open after a test than before it."""
    sockets, threads = _sockets(), set(threading.enumerate())
    yield
    lmdeck.reset()
    deadline = time.monotonic() + PATIENCE
    while True:
        more_sockets, more_threads = _sockets() - sockets, set(threading.enumerate()) - threads
        if not (more_sockets or more_threads):
            return
        gc.collect()
        assert time.monotonic() < deadline, f"left behind: {more_sockets or more_threads}"
        time.sleep(0.01)


def _sockets() -> set[str]:
    """Return the open sockets of this process, where the system lists them."""
    folder = Path("/proc/self/fd")
    found = set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            target = str(entry.readlink())
        except OSError:  # the descriptor of this very listing
            continue
        if target.startswith("socket:"):
            found.add(f"{entry.name} {target}")
    return found
