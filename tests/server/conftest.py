from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from lmdeck.server.app import create_app
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.server.tool_use import DefaultToolUse
from wire_tools import Parrot

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def parrot_server() -> Iterator[tuple[Parrot, str]]:
    parrot = Parrot()
    with BackgroundServer(create_app(DefaultToolUse(parrot)), listen()) as server:
        yield parrot, server.base_url
        thread = server._thread
    assert thread not in threading.enumerate()


@pytest.fixture
def parrot(parrot_server: tuple[Parrot, str]) -> Parrot:
    """The model behind `url`, as new."""
    parrot, _ = parrot_server
    parrot.reset()
    return parrot


@pytest.fixture
def url(parrot: Parrot, parrot_server: tuple[Parrot, str]) -> str:
    return parrot_server[1]
