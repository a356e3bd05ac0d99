"""The interface between relayed requests and the hosts.

The hosts are managed in the same process, or in the parent of several serving processes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from msgspec import Struct

from lmdeck.errors import LMStudioError
from lmdeck.gateway.host_client import HostClient

__all__ = ["Capacity", "HostSlot", "Router", "SlotRequest"]


class SlotRequest(Struct, kw_only=True):
    """A request for a slot on a host.

    `models` are tried in this order; without any, the least busy host is chosen. `cost` is in tokens. `conversation` and
    `response` identify what the request continues (see `sticky`); `avoided` are hosts that have failed to answer it.
    """

    request_id: str
    key: str
    cost: int
    models: tuple[str, ...]
    conversation: bytes | None = None
    response: bytes | None = None
    avoided: frozenset[str] = frozenset()
    is_background: bool = False


class Capacity(Struct, kw_only=True):
    """How many answers the hosts generate at once: of each model, and the number of hosts."""

    parallel: Mapping[str, int]
    hosts: int


class HostSlot(Protocol):
    """The right to run one request on a host."""

    @property
    def host(self) -> HostClient:
        """The host."""
        ...

    @property
    def model(self) -> str:
        """The model to ask; `""` if the request names none."""
        ...

    @property
    def variant(self) -> str:
        """The key, variant and quantization of the model, as far as the host lists them."""
        ...

    def note_first_byte(self) -> None:
        """Record that the model has answered."""
        ...

    def note_failure(self, error: LMStudioError) -> None:
        """Record what a failure says about the host."""
        ...

    def release(self) -> None:
        """Release the slot; a second call does nothing."""
        ...


class Router(Protocol):
    """Chooses the hosts of requests."""

    def acquire(self, wanted: SlotRequest) -> Awaitable[HostSlot]:
        """Wait for a slot on a host.

        Raises:
            LMStudioError: No host has a model, the queue is full, or the wait was too long.
        """
        ...

    def has_other(self, wanted: SlotRequest) -> Awaitable[bool]:
        """Whether a host that is not avoided may answer."""
        ...

    def bind_response(self, response: bytes, host: str) -> None:
        """Record which host stores a response: only it can continue it."""
        ...
