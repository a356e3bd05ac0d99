"""The start of a gateway.

It checks the configuration, opens the socket, and starts the process that serves on it. The packages of the command line
are not loaded there, which saves 12 MB of memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from lmdeck._incoming.trust import is_loopback
from lmdeck.errors import ConfigurationError
from lmdeck.gateway.config import Config
from lmdeck.server.sockets import listen

__all__ = ["become_server", "check_exposure"]

MIN_FILES_FREE = 64


def check_exposure(config: Config) -> None:
    """Check that the gateway is not open to other machines by accident.

    Raises:
        ConfigurationError: It listens beyond loopback, and the configuration does not say whether clients need a key.
    """
    host = config.server.host
    if is_loopback(host.strip("[]")) or config.auth.required is not None:
        return
    raise ConfigurationError(
        f"The gateway would listen on {host}, which other machines can reach, without keys.",
        hint="In [auth], set `required = true` and create keys, or set `required = false` to serve all clients without keys.",
    )


def become_server(path: str | None, server: Mapping[str, object]) -> NoReturn:
    """Check a configuration, open its socket, and become the process that serves.

    On Windows, which cannot replace a process, it serves in this one.

    `server` has the settings of the command line, which override those of the table `[server]`.

    Raises:
        ConfigurationError: The configuration is invalid, or its address is in use, or open to other machines without keys.
    """
    config = Config.load(path, server)
    check_exposure(config)
    listener = listen(config.server.host, config.server.port)
    allow_connections(config.limits.connections)
    arguments = [msgspec.json.encode([path, server]).decode(), str(listener.fileno())]
    if sys.platform == "win32":
        from lmdeck.gateway.serve_main import main

        sys.exit(main(arguments))
    os.set_inheritable(listener.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-m", "lmdeck.gateway.serve_main", *arguments])  # noqa: S606  # no shell


def allow_connections(count: int) -> None:
    """Raise the limit of open files as far as allowed, also for processes started later.

    Each request needs a connection of the client and one to the host.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + MIN_FILES_FREE
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
