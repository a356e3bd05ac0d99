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
from lmdeck._transport.tls import TLS_HINT
from lmdeck.errors import (
    ConfigurationError,
    ConnectionLostError,
    LMStudioError,
    MalformedStreamError,
    ServerUnreachableError,
    TransportError,
)

__all__ = ["root_of", "translate"]


def translate(error: Exception, request: WireRequest) -> LMStudioError:
    """Give the error of ours that one of urllib3, `http.client` or the socket means, the most specific first."""
    cause = root_of(error)
    if isinstance(error, NewConnectionError):
        return ServerUnreachableError(f"Nothing answers at {request.server}: {_reason(error)}.")
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind) or isinstance(cause, kind):
            return make(cause)
    if isinstance(error, ConnectTimeoutError):
        return Deadlines(request.timeouts).expired("connect")
    return TransportError(f"The request failed: {cause!r}.")


def root_of(error: BaseException) -> BaseException:
    """Find the innermost reason: urllib3 keeps it as its last argument."""
    while isinstance(error, (ProtocolError, ProxyError)) and error.args and isinstance(error.args[-1], BaseException):
        error = error.args[-1]
    return error


Translation = tuple[type[BaseException] | tuple[type[BaseException], ...], Callable[[BaseException], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (LocationValueError, lambda cause: ConfigurationError(f"The server's address is wrong: {cause}.")),
    (
        ProxyError,
        lambda cause: ServerUnreachableError(f"The proxy failed: {cause}.", hint="Check the setting `proxy`."),
    ),
    ((SSLError, ssl.SSLError), lambda cause: TransportError(f"TLS failed: {cause}.", hint=TLS_HINT)),
    (
        http.client.BadStatusLine,
        lambda cause: (
            ConnectionLostError("The server closed the connection without an answer.")
            if isinstance(cause, http.client.RemoteDisconnected)
            else MalformedStreamError(f"The server does not speak HTTP: {cause}.")
        ),
    ),
    (http.client.IncompleteRead, lambda cause: ConnectionLostError(f"The answer was cut: {cause}.")),
    (
        (ChunkedError, DecodeError, http.client.HTTPException),
        lambda cause: MalformedStreamError(f"The server's answer is not valid HTTP: {cause!r}."),
    ),
    ((ProtocolError, ConnectionError), lambda cause: ConnectionLostError(f"The connection broke: {cause}.")),
    (OSError, lambda cause: ServerUnreachableError(f"The connection failed: {cause}.")),
]


def _reason(error: NewConnectionError) -> str:
    """Give what a failed connection says, without the connection object and the number in front of it."""
    cause = error.__cause__
    words = cause.strerror if isinstance(cause, OSError) else None
    return (words or str(error).rpartition(": ")[2]).rstrip(".").lower()
