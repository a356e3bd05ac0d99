"""`lm` and `alm`: the clients with the settings `LMDECK`, created at first use.

Sockets must not be shared between processes or event loops: `lm` is one client per process, `alm` one client per event loop.
After a fork, and when the setting changes, the next use creates a new one. All share the registered tools.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Unpack, cast
from weakref import WeakKeyDictionary

from django.core.signals import setting_changed
from django.dispatch import receiver

from lmdeck._client.clients import AsyncLMStudio, LMStudio
from lmdeck._forking import on_fork
from lmdeck.contrib.django.conf import configuration
from lmdeck.contrib.django.signals import attach
from lmdeck.contrib.django.tools import registry

if TYPE_CHECKING:
    from lmdeck.config import ClientSettings


class _SyncClient(LMStudio):
    """A client with the project's tools and signals."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        super().__init__(tools=registry, **settings)
        attach(self)


class _AsyncClient(AsyncLMStudio):
    """Async version of `_SyncClient`."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        super().__init__(tools=registry, **settings)
        attach(self)


class _ClientProxy:
    """A proxy that forwards attribute access to the current client."""

    def __getattr__(self, name: str) -> Any:  # whatever the client has
        if name.startswith("__"):
            raise AttributeError(name)  # copying and inspection do not create a client
        return getattr(self._current(), name)

    def __dir__(self) -> list[str]:
        return dir(self._current())

    def __repr__(self) -> str:
        return f"<{type(self).__name__.strip('_').lower()}: {self._current()!r}>"

    def _current(self) -> LMStudio | AsyncLMStudio:
        raise NotImplementedError


class _Lm(_ClientProxy):
    """The proxy of the one client of the process."""

    def __init__(self) -> None:
        self._client: LMStudio | None = None
        self._renew_lock()
        on_fork(self, _Lm._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # also after a fork: a thread of the parent may have held the old one

    def _current(self) -> LMStudio:
        with self._lock:
            if self._client is None:
                self._client = _SyncClient(**configuration().client)
            return self._client

    def renew(self) -> None:
        """Close the client; the next use creates another."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class _Alm(_ClientProxy):
    """The proxy of one client per event loop.

    Code without a loop, such as a sync view, has one client per thread.
    """

    def __init__(self) -> None:
        self.renew()

    def _current(self) -> AsyncLMStudio:
        clients, key = self._clients()
        client = clients.get(key)
        if client is None:
            client = clients[key] = _AsyncClient(**configuration().client)
        return client

    def _clients(self) -> tuple[MutableMapping[Any, AsyncLMStudio], object]:
        try:
            return self._by_loop, asyncio.get_running_loop()
        except RuntimeError:
            return self._by_thread.__dict__, "client"

    def renew(self) -> None:
        """Drop the clients; each closes its connections at the end of its loop."""
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncLMStudio] = WeakKeyDictionary()
        self._by_thread = threading.local()


_lm, _alm = _Lm(), _Alm()
lm = cast("LMStudio", _lm)
"""The client of sync code, with the settings `LMDECK`: one for each process."""

alm = cast("AsyncLMStudio", _alm)
"""The client of async code, with the settings `LMDECK`: one for each event loop."""


@receiver(setting_changed, dispatch_uid="lmdeck.clients")
def _renew(*, setting: str, **_: object) -> None:
    if setting == "LMDECK":
        _lm.renew()
        _alm.renew()
