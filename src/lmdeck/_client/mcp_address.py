"""The address of an MCP server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from lmdeck._late_patterns import late_pattern
from lmdeck._secret import redact_url

_RUNNERS = late_pattern(r"(python[\d.]*w?|node|npx|uvx|bunx|pipx|deno)(\.exe|\.cmd)?")
_PROGRAM = late_pattern(r"[^-\s]\S*")  # no option, and no code


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
        """The server's name in errors and events: its URL without secrets, or its command.

        Many servers have the same command, such as `uvx`, so the program that it runs is named, too. Other arguments may be
        secret.
        """
        if self.url is not None:
            return redact_url(self.url)
        command = str(self.command)
        is_runner = _RUNNERS.fullmatch(re.split(r"[/\\]", command)[-1]) is not None
        program = next(filter(_PROGRAM.fullmatch, self.args), "") if is_runner else ""
        return f"{command} {redact_url(program) if '://' in program else program}".strip()
