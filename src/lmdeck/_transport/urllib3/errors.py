"""Translate errors of urllib3, `http.client` and the socket."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable

from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    InvalidHeader,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from lmdeck._transport import WireRequest, server_of
from lmdeck._transport.chunked import ChunkedError
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.reasons import reason_of, unreachable
from lmdeck._transport.tls import TLS_HINT
from lmdeck.errors import (
    ConfigurationError,
    ConnectionLostError,
    LMStudioError,
    MalformedStreamError,
    ServerUnreachableError,
    TransportError,
    describe,
)


def translate(error: Exception, request: WireRequest) -> LMStudioError:
    """Return the most specific lmdeck error for one of urllib3, `http.client` or the socket."""
    cause = root_of(error)
    if isinstance(error, NewConnectionError):
        return unreachable(server_of(request.url), error)
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind) or isinstance(cause, kind):
            return make(cause)
    if isinstance(error, ConnectTimeoutError):
        return Deadlines(request.timeouts).expired("connect")
    return TransportError(f"The request to {server_of(request.url)} failed ({type(cause).__name__}).")


def root_of(error: BaseException) -> BaseException:
    """Return the innermost error, which urllib3 passes as its last argument."""
    while isinstance(error, (ProtocolError, ProxyError)) and error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return error


def is_broken_by_system(error: BaseException) -> bool:
    """Whether the system gave up a connection (`ETIMEDOUT`).

    Timeouts of our own limits have no error number.
    """
    cause = error.__cause__ if isinstance(error, ReadTimeoutError) else error
    return isinstance(cause, TimeoutError) and cause.errno is not None


Translation = tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (
        LocationValueError,
        lambda _: ConfigurationError("The server's address is invalid.", hint="Check `base_url` or `host`."),
    ),
    (
        ProxyError,
        lambda cause: ServerUnreachableError(f"The proxy failed{reason_of(cause)}.", hint="Check the setting `proxy`."),
    ),
    ((SSLError, ssl.SSLError), lambda cause: TransportError(f"TLS failed{reason_of(cause)}.", hint=TLS_HINT)),
    (
        http.client.BadStatusLine,
        lambda cause: (
            ConnectionLostError("The server closed the connection without an answer.")
            if isinstance(cause, http.client.RemoteDisconnected)
            else MalformedStreamError(f"The server does not speak HTTP: {describe(getattr(cause, 'line', ''))}.")
        ),
    ),
    (http.client.IncompleteRead, lambda _: ConnectionLostError("The answer was cut off before its end.")),
    (ChunkedError, lambda cause: MalformedStreamError(f"The server's answer is not valid HTTP: {cause}.")),
    (DecodeError, lambda _: MalformedStreamError("The server's answer is not valid HTTP: its compression is invalid.")),
    (
        (http.client.HTTPException, InvalidHeader),
        lambda _: MalformedStreamError("The server's answer is not valid HTTP: its head is invalid."),
    ),
    # Errors while connecting are `NewConnectionError`s, so any other error of the socket broke a connection.
    (
        (ProtocolError, ReadTimeoutError, OSError),
        lambda cause: ConnectionLostError(f"The connection broke{reason_of(cause)}."),
    ),
]
