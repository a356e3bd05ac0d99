"""The start of a gateway: checks of its configuration, its socket, and the process that serves on it.

The command line and its packages stay in the process that starts, since they take 12 MB of memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NoReturn

import msgspec

from lmdeck.errors import ConfigurationError
from lmdeck.gateway.config import Config
from lmdeck.server.sockets import listen
from lmdeck.web.trust import is_loopback

__all__ = ["ServeOptions", "become_server", "check_exposure"]


class ServeOptions(msgspec.Struct, frozen=True):
    """The path of a configuration, and the settings of its table `[server]` that the command line overrides."""

    path: str | None = None
    server: Mapping[str, str | int] = {}

    def load(self) -> Config:
        """Return the configuration.

        Raises:
            ConfigurationError: The file cannot be read, or a setting is wrong.
        """
        config = Config.load(self.path)
        return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **self.server))


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
        hint="Set `required = true` in [auth] and create keys, or `required = false` to serve everybody.",
    )


def become_server(options: ServeOptions) -> NoReturn:
    """Check a configuration, open its socket, and replace this process by one that serves; on Windows, serve here.

    Raises:
        ConfigurationError: The configuration is wrong, its address is not free, or open to other machines without keys.
    """
    config = options.load()
    check_exposure(config)
    listener = listen(config.server.host, config.server.port)
    arguments = [msgspec.json.encode(options).decode(), str(listener.fileno())]
    if sys.platform == "win32":
        from lmdeck.gateway.serve_main import main

        sys.exit(main(arguments))
    os.set_inheritable(listener.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-m", "lmdeck.gateway.serve_main", *arguments])  # noqa: S606  # no shell
