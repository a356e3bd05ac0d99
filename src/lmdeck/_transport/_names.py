"""Name look-ups that end in time: the system's own cannot be given a limit, so it runs in a thread that may be left alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import asyncio

__all__ = ["AddressInfo", "look_up", "look_up_async"]

AddressInfo: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"
"""What `socket.getaddrinfo` returns: family, kind, protocol, canonical name, address."""

Outcome: TypeAlias = "Sequence[AddressInfo] | BaseException"


def look_up(host: str, port: int, seconds: float | None) -> Sequence[AddressInfo]:
    """Return the addresses of a name.

    Raises:
        TimeoutError: The look-up took longer than `seconds`.
        OSError: The name is not known.
    """
    if _is_local(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    _start(host, port, outcomes.put)
    try:
        outcome = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"the name {host} was not resolved in time") from None
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


async def look_up_async(host: str, port: int) -> Sequence[AddressInfo]:
    """Return the addresses of a name; a cancelled look-up is left to its thread, which no event loop waits for.

    Raises:
        OSError: The name is not known.
    """
    import asyncio  # here, because the sync transport needs none

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()

    def settle(outcome: Outcome) -> None:
        if future.done():  # cancelled
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def hand_over(outcome: Outcome) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    _start(host, port, hand_over)
    return await future


def _is_local(host: str) -> bool:
    """Whether no name server is asked for it."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _start(host: str, port: int, report: Callable[[Outcome], object]) -> None:
    def work() -> None:
        try:
            report(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001  # it is raised where the look-up was asked for
            report(error)

    threading.Thread(target=work, name=f"lmdeck-look-up-{host}", daemon=True).start()
