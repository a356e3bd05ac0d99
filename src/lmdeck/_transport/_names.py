"""Name look-ups with a time limit.

The system's look-ups do not have one, so they run in a thread that may be abandoned.
"""

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

AddressInfo: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"
"""What `socket.getaddrinfo` returns: family, kind, protocol, canonical name, address."""

LookUpResult: TypeAlias = "Sequence[AddressInfo] | BaseException"


def look_up(host: str, port: int, seconds: float | None) -> Sequence[AddressInfo]:
    """Return the addresses of a name.

    Raises:
        TimeoutError: The look-up took longer than `seconds`.
        OSError: The name is unknown, or has no address.
    """
    if _is_local(host):
        return socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)  # a `str` would load the codec of IDNA
    results: SimpleQueue[LookUpResult] = SimpleQueue()
    _start(host, port, results.put)
    try:
        result = results.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"the name {host} was not resolved in time") from None
    if isinstance(result, BaseException):
        raise result
    return result


async def look_up_async(host: str, port: int) -> Sequence[AddressInfo]:
    """Return the addresses of a name.

    A cancelled look-up continues in its thread, for which no event loop waits.

    Raises:
        OSError: The name is unknown, or has no address.
    """
    import asyncio  # imported late: the sync transport does not need it

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()

    def resolve(result: LookUpResult) -> None:
        if future.done():  # cancelled
            return
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def report(result: LookUpResult) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(resolve, result)

    _start(host, port, report)
    return await future


def _is_local(host: str) -> bool:
    """Whether a name can be resolved without a name server."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _start(host: str, port: int, report: Callable[[LookUpResult], object]) -> None:
    def work() -> None:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            report(addresses or socket.gaierror(socket.EAI_NONAME, "the name has no address"))
        except Exception as error:  # raised in the thread or task that waits
            report(error)

    threading.Thread(target=work, name=f"lmdeck-look-up-{host}", daemon=True).start()
