"""The options before the command: server, timeout, debug."""

from __future__ import annotations

from msgspec import Struct

from lmdeck._client.clients import LMStudio
from lmdeck.config import ClientSettings


class Shared(Struct, frozen=True, kw_only=True):
    """The options given before the command."""

    settings: ClientSettings
    debug: bool = False

    def client(self) -> LMStudio:
        """Return a client made with these options."""
        return LMStudio(**self.settings)
