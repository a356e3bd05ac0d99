"""The facade: one default client, made when it is needed, for threads and forks alike."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lmdeck
from asking import until
from lmdeck import ConfigurationError, LMStudio, _facade
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE


def test_the_facade_asks_the_configured_server(hello: FakeLMStudio) -> None:
    """`configure` once, then `lmdeck.chat()`, `lmdeck.models` and `lmdeck.health()` go there."""
    hello.at("/api/v1/models").body({"models": [{"key": "a", "type": "llm", "loaded_instances": [{"id": "a"}]}]})
    hello.add_model("a")
    lmdeck.configure(base_url=hello.base_url)
    assert lmdeck.chat().user("Hi").send().content == "Hello."
    assert [model.key for model in lmdeck.models.list()] == ["a"]
    assert lmdeck.health().reachable
    assert lmdeck.chat("b", strict=True).model == "b"
    lmdeck.reset()


def test_the_client_is_made_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the environment count at the first use, not at the import."""
    monkeypatch.setenv("LMDECK_PORT", "4321")
    assert lmdeck.default_client().settings.port == 4321
    monkeypatch.setenv("LMDECK_PORT", "4322")
    assert lmdeck.default_client().settings.port == 4321
    lmdeck.reset()
    assert lmdeck.default_client().settings.port == 4322


def test_a_bad_setting_is_reported_at_the_first_use_and_not_kept() -> None:
    """A wrong `configure` is an error where the client is made, and can be put right."""
    lmdeck.configure(port=99_999_999)
    with pytest.raises(ConfigurationError):
        lmdeck.chat()
    lmdeck.configure(port=4321)
    assert lmdeck.chat().model is None


def test_fifty_threads_get_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client is created, however many threads ask for it at once."""
    made: list[LMStudio] = []
    start = threading.Barrier(50)

    class Counted(LMStudio):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(_facade, "LMStudio", Counted)

    def ask(_: int) -> LMStudio:
        start.wait(PATIENCE)
        return lmdeck.default_client()

    with ThreadPoolExecutor(50) as pool:
        clients = set(pool.map(ask, range(50)))
    assert len(clients) == len(made) == 1


def test_configure_closes_the_client_before(hello: FakeLMStudio) -> None:
    """The connections of the old client do not stay."""
    lmdeck.configure(base_url=hello.base_url, model="m")
    lmdeck.chat().user("Hi").send()
    old = lmdeck.default_client()
    assert hello.open_connections == 1
    lmdeck.configure(base_url=hello.base_url, model="m")
    until(lambda: hello.open_connections == 0)
    assert lmdeck.default_client() is not old


FORK = """
import os, sys, lmdeck
lmdeck.configure(base_url=sys.argv[1], model="m")
assert lmdeck.chat().user("Hi").send().content == "Hello."
mine = lmdeck.default_client()
child = os.fork()
assert lmdeck.default_client() is mine
assert lmdeck.chat().user("Hi").send().content == "Hello."
assert not child or os.waitpid(child, 0)[1] == 0
assert lmdeck.chat().user("Hi").send().content == "Hello."
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
def test_a_fork_gets_its_own_connection(hello: FakeLMStudio) -> None:
    """Parent and child never share a connection, and neither breaks the other's."""
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, hello.base_url],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert sorted(request.connection for request in hello.requests) == [0, 0, 0, 1, 1]
