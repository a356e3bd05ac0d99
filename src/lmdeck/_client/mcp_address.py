"""The address of an MCP server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from lmdeck._secret import redact_url


class ServerAddress(Struct, frozen=True, kw_only=True):
    """The URL or command of a server.

    `timeout` (seconds) applies to connecting and to each call.
    """

    url: str | None = None
    command: str | None = None
    args: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    headers: Mapping[str, str] = {}
    timeout: float = 30.0

    @property
    def name(self) -> str:
        """The server's name in errors and events: its address without secrets, or its command."""
        return redact_url(self.url) if self.url is not None else str(self.command)
