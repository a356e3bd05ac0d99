"""Translate errors of aiohttp and the socket."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable

import aiohttp
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError, TransferEncodingError
from multidict import CIMultiDict, CIMultiDictProxy

from lmdeck._transport import server_of
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

PROXY_HINT = "Check the setting `proxy`."


def forget_headers(error: Exception) -> None:
    """Remove the request's headers, and with them the token, from an error that shows them."""
    if isinstance(error, aiohttp.ClientResponseError):
        info = error.request_info
        error.request_info = aiohttp.RequestInfo(info.url, info.method, CIMultiDictProxy(CIMultiDict()), info.real_url)
        error.args = (error.request_info, error.history)


def is_limit(error: Exception) -> bool:
    """Whether one of our own limits was exceeded; a timeout of the system has an error number."""
    return isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError) and error.errno is None


def translate(error: Exception, url: str, deadlines: Deadlines) -> LMStudioError:
    """Return lmdeck's error for one of aiohttp or the socket, the most specific one."""
    if isinstance(error, aiohttp.ServerTimeoutError):
        return deadlines.expired("connect")
    for kind, make in TRANSLATIONS:
        if isinstance(error, kind):
            return make(error, server_of(url))
    return TransportError(f"The request to {server_of(url)} failed ({type(error).__name__}).")


def _unreachable(error: Exception, server: str) -> LMStudioError:
    return unreachable(server, error)


def _proxy_failed(error: Exception, _: str) -> LMStudioError:
    answered = f": it answered {error.status}" if isinstance(error, aiohttp.ClientHttpProxyError) else reason_of(error)
    return ServerUnreachableError(f"The proxy failed{answered}.", hint=PROXY_HINT)


def _body_error(error: Exception, _: str) -> LMStudioError:
    """Return the error for a body with an invalid coding, or for one that was cut off."""
    cause = error.__cause__
    if isinstance(cause, HttpProcessingError) and not isinstance(cause, (ContentLengthError, TransferEncodingError)):
        return MalformedStreamError("The server's answer is not valid HTTP: its framing or compression is invalid.")
    return ConnectionLostError("The answer was cut off before its end.")


def _not_http(error: Exception, _: str) -> LMStudioError:
    """Return an error with the first line of the server's answer, which aiohttp quotes."""
    line = QUOTED.search(str(error))
    shown = f": {describe(line[1])}" if line else ""
    return MalformedStreamError(f"The server's answer is not valid HTTP{shown}.")


QUOTED = re.compile(r"\bb'([^'\n]*)'")
Translation = tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Exception, str], LMStudioError]]
TRANSLATIONS: list[Translation] = [
    (
        (aiohttp.InvalidURL, UnicodeError),  # a label of the name is empty or too long
        lambda *_: ConfigurationError("The server's address is invalid.", hint="Check `base_url` or `host`."),
    ),
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), _proxy_failed),
    (
        (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch, ssl.SSLError),
        lambda error, _: TransportError(f"TLS failed{reason_of(error)}.", hint=TLS_HINT),
    ),
    (aiohttp.ClientConnectorError, _unreachable),
    (
        aiohttp.ServerDisconnectedError,
        lambda *_: ConnectionLostError("The server closed the connection without an answer."),
    ),
    (aiohttp.ClientPayloadError, _body_error),
    (aiohttp.ClientResponseError, _not_http),
    # Errors while connecting are `ClientConnectorError`s, so any other error of the socket broke a connection.
    (
        (aiohttp.ClientConnectionError, OSError),
        lambda error, _: ConnectionLostError(f"The connection broke{reason_of(error)}."),
    ),
]
