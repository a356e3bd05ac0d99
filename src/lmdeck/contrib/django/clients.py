"""`lm` and `alm`: the clients of the setting `LMDECK`, made when they are first used.

Sockets must not be shared between processes, nor between event loops: `lm` is one client a process, `alm` one client an event
loop. After a fork, and when the setting changes, the next use makes a new one. All share the tools that were registered.
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

__all__ = ["alm", "lm"]


class _SyncClient(LMStudio):
    """A client with the project's tools and signals."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        super().__init__(tools=registry, **settings)
        attach(self)


class _AsyncClient(AsyncLMStudio):
    """The same for asyncio."""

    def __init__(self, **settings: Unpack[ClientSettings]) -> None:
        super().__init__(tools=registry, **settings)
        attach(self)


class _Lazy:
    """Stands for a client: every attribute is looked up in the one of here and now."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the client has
        if name.startswith("__"):
            raise AttributeError(name)  # copying and inspecting make no client
        return getattr(self._current(), name)

    def __dir__(self) -> list[str]:
        return dir(self._current())

    def __repr__(self) -> str:
        return f"<{type(self).__name__.strip('_').lower()}: {self._current()!r}>"

    def _current(self) -> LMStudio | AsyncLMStudio:
        raise NotImplementedError


class _Lm(_Lazy):
    """One client for the process."""

    def __init__(self) -> None:
        self._client: LMStudio | None = None
        self._renew_lock()
        on_fork(self, _Lm._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # after a fork, too: another thread of the parent may have held that one

    def _current(self) -> LMStudio:
        with self._lock:
            if self._client is None:
                self._client = _SyncClient(**configuration().client)
            return self._client

    def _renew(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class _Alm(_Lazy):
    """One client for each event loop; code that runs on none, such as a sync view that builds a chat, has one a thread."""

    def __init__(self) -> None:
        self._renew()

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

    def _renew(self) -> None:
        """Forget the clients; each closes its connections at the end of its loop."""
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncLMStudio] = WeakKeyDictionary()
        self._by_thread = threading.local()


_lm, _alm = _Lm(), _Alm()
lm = cast("LMStudio", _lm)
alm = cast("AsyncLMStudio", _alm)


@receiver(setting_changed, dispatch_uid="lmdeck.clients")
def _renew(*, setting: str, **_: object) -> None:
    if setting == "LMDECK":
        _lm._renew()  # noqa: SLF001
        _alm._renew()  # noqa: SLF001
