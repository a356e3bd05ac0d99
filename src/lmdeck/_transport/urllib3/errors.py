"""What an error of urllib3, `http.client` or the socket means."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable

from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    LocationValueError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)

from lmdeck._transport import WireRequest
from lmdeck._transport.chunked import ChunkedError
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.reasons import because
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

__all__ = ["root_of", "translate"]


def translate(error: Exception, request: WireRequest) -> LMStudioError:
    """Give the error of ours that one of urllib3, `http.client` or the socket means, the most specific first."""
    cause = root_of(error)
    if isinstance(error, NewConnectionError):
        return ServerUnreachableError(f"Nothing answers at {request.server}{because(error)}.")
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind) or isinstance(cause, kind):
            return make(cause)
    if isinstance(error, ConnectTimeoutError):
        return Deadlines(request.timeouts).expired("connect")
    return TransportError(f"The request to {request.server} failed ({type(cause).__name__}).")


def root_of(error: BaseException) -> BaseException:
    """Find the innermost reason: urllib3 keeps it as its last argument."""
    while isinstance(error, (ProtocolError, ProxyError)) and error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return error


Translation = tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (
        LocationValueError,
        lambda _: ConfigurationError("The server's address is wrong.", hint="Check `base_url` or `host`."),
    ),
    (
        ProxyError,
        lambda cause: ServerUnreachableError(f"The proxy failed{because(cause)}.", hint="Check the setting `proxy`."),
    ),
    ((SSLError, ssl.SSLError), lambda cause: TransportError(f"TLS failed{because(cause)}.", hint=TLS_HINT)),
    (
        http.client.BadStatusLine,
        lambda cause: (
            ConnectionLostError("The server closed the connection without an answer.")
            if isinstance(cause, http.client.RemoteDisconnected)
            else MalformedStreamError(f"The server does not speak HTTP: {describe(getattr(cause, 'line', ''))}.")
        ),
    ),
    (http.client.IncompleteRead, lambda _: ConnectionLostError("The answer was cut before its end.")),
    (ChunkedError, lambda cause: MalformedStreamError(f"The server's answer is not valid HTTP: {cause}.")),
    (DecodeError, lambda _: MalformedStreamError("The server's answer is not valid HTTP: its compression is broken.")),
    (
        http.client.HTTPException,
        lambda _: MalformedStreamError("The server's answer is not valid HTTP: its head is broken."),
    ),
    ((ProtocolError, ConnectionError), lambda cause: ConnectionLostError(f"The connection broke{because(cause)}.")),
    (OSError, lambda cause: ServerUnreachableError(f"The connection failed{because(cause)}.")),
]
