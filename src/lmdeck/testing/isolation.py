"""Isolation of tests: settings that point to the fake, and no connections to other servers."""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.testing.fake import FakeLMStudio

LM_STUDIO_PORTS = (1234,)
_CLEARED = ("LMDECK_HOST", "LMDECK_PORT", "LMDECK_MODEL", "LM_API_TOKEN", "LMDECK_API_TOKEN")


class RealRequestError(ConnectionRefusedError):
    """A test tried to connect to a server other than the fake."""


def environment_for(base_url: str) -> dict[str, str]:
    """Return the environment variables by which lmdeck's and other clients find a server."""
    return {
        "LMDECK_BASE_URL": base_url,
        "LMSTUDIO_BASE_URL": base_url,
        "OPENAI_BASE_URL": f"{base_url}/v1",
        "OPENAI_API_BASE": f"{base_url}/v1",
        "OPENAI_API_KEY": "lm-studio",
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": "lm-studio",
    }


@contextmanager
def environment(fake: FakeLMStudio) -> Iterator[None]:
    """Point the environment and lmdeck's default client to a fake, and restore both at the end."""
    import lmdeck

    wanted = environment_for(fake.base_url)
    before = {name: os.environ.get(name) for name in (*wanted, *_CLEARED)}
    for name in _CLEARED:
        os.environ.pop(name, None)
    os.environ.update(wanted)
    lmdeck.reset()
    try:
        yield
    finally:
        lmdeck.reset()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def block_other_connections(fake: FakeLMStudio, *, allow_all: bool = False) -> Iterator[None]:
    """Block connections to other machines and to LM Studio's port.

    Other local servers remain reachable.

    Raises:
        RealRequestError: Raised within the block by a blocked connection.
    """
    if allow_all:
        yield
        return
    own = urlsplit(fake.base_url).port
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(address: object) -> None:
        if not isinstance(address, tuple):
            return
        host, port = str(address[0]), address[1]
        if port != own and (port in LM_STUDIO_PORTS or not _is_loopback(host)):
            raise RealRequestError(
                f"A test with a fake LM Studio tried to reach {host}, port {port}. Point the application to {fake.base_url}, "
                "or allow it with `@pytest.mark.lmstudio(allow_network=True)`."
            )

    def checked_connect(self: socket.socket, address: Any) -> None:  # of any address family
        check(address)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    socket.socket.connect, socket.socket.connect_ex = checked_connect, checked_connect_ex  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect, socket.socket.connect_ex = connect, connect_ex  # type: ignore[method-assign]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
