"""The gateway: one address with repaired answers, in front of many LM Studio hosts.

`lmdeck gateway serve --config gateway.toml` runs it. `create_app(Config.load(path))` returns the ASGI application for another
server; it needs the extra `gateway`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmdeck.gateway.admission import Admission
    from lmdeck.gateway.app import Gateway
    from lmdeck.gateway.config import Config

__all__ = ["Config", "create_app"]


def create_app(config: Config | None = None, *, admission: Admission | None = None) -> Gateway:
    """Return the gateway as an ASGI application.

    Without a configuration, it has one host, `http://localhost:1234`.

    `admission` replaces the keys and limits of the configuration.
    """
    from lmdeck.gateway.app import Gateway  # imported late: it needs the extra
    from lmdeck.gateway.config import Config

    return Gateway(Config() if config is None else config, admission=admission)


def __getattr__(name: str) -> object:
    """Import `Config` on first use, since the store of this package is used without it."""
    if name != "Config":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmdeck.gateway.config import Config

    return Config
