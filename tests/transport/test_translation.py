"""Every exception of the HTTP libraries and the socket becomes an error of ours, with a message and a hint."""

from __future__ import annotations

import errno
import http.client
import inspect
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import urllib3.exceptions
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import ContentEncodingError, ContentLengthError, TransferEncodingError
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from lmdeck import (
    ConfigurationError,
    ConnectionLostError,
    LMStudioError,
    MalformedStreamError,
    RequestTimeoutError,
    ServerUnreachableError,
    TransportError,
)
from lmdeck._transport import WireRequest
from lmdeck._transport import aiohttp as aiohttp_transport
from lmdeck._transport.chunked import ChunkedError
from lmdeck._transport.deadlines import Deadlines
from lmdeck._transport.urllib3 import errors

REQUEST = WireRequest(method="POST", url="http://lm.test:1234/v1/chat/completions")
KEY = ConnectionKey("lm.test", 1234, False, True, None, None, None)
INFO = aiohttp.RequestInfo(URL(REQUEST.url), "POST", CIMultiDictProxy(CIMultiDict()), URL(REQUEST.url))
POOL = urllib3.HTTPConnectionPool("lm.test", 1234)
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
VALUES: dict[str, Any] = {
    "pool": POOL,
    "conn": POOL.ConnectionCls("lm.test", 1234),
    "host": "lm.test",
    "url": "/v1/chat/completions",
    "message": "it broke",
    "reason": REFUSED,
    "error": REFUSED,
    "partial": 1,
    "expected": 2,
    "response": urllib3.HTTPResponse(b""),
    "length": b"xyz",
    "retries": 1,
    "location": "lm.test:x",
    "scheme": "socks5",
    "defects": None,
    "unparsed_data": b"",
    "os_error": REFUSED,
    "certificate_error": ssl.SSLCertVerificationError("self-signed certificate"),
    "connection_key": KEY,
    "path": "/tmp/socket",
    "request_info": INFO,
    "history": (),
    "got": b"",
    "port": 1234,
}


def translated_async(error: Exception) -> LMStudioError:
    """Return the async transport's error for an exception of a request."""
    return aiohttp_transport.translate(error, REQUEST.url, Deadlines(REQUEST.timeouts))


def tree(base: type[BaseException]) -> Iterator[type[BaseException]]:
    """Return a class and all below it, each once."""
    seen = {base}
    yield from seen_in_order(base, seen)


def seen_in_order(base: type[BaseException], seen: set[type[BaseException]]) -> Iterator[type[BaseException]]:
    yield base
    for kind in base.__subclasses__():
        if kind not in seen:
            seen.add(kind)
            yield from seen_in_order(kind, seen)


def made(kind: type[BaseException]) -> BaseException:
    """Make an exception of any of these classes; whatever its constructor asks for by name is in `VALUES`."""
    if kind is http.client.IncompleteRead:
        return kind(b"half")
    try:
        parameters = list(inspect.signature(kind).parameters.values())
    except ValueError:  # a class of C
        return kind("it broke")
    wanted = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD} and p.default is p.empty]
    if not wanted:
        return kind("it broke") if any(p.kind is p.VAR_POSITIONAL for p in parameters) else kind()
    return kind(*(VALUES.get(p.name.lstrip("_"), "it broke") for p in wanted))


SYNC = [*tree(urllib3.exceptions.HTTPError), *tree(http.client.HTTPException)]
ASYNC = list(tree(aiohttp.ClientError))
SYSTEM = [kind for kind in tree(OSError) if kind.__module__ in {"builtins", "socket", "ssl"}]


def check(error: LMStudioError) -> None:
    assert isinstance(error, LMStudioError)
    assert error.message.strip(" .")
    assert error.hint
    assert "object at 0x" not in error.message


def test_the_trees_are_walked() -> None:
    """The walks below find what they are meant to find."""
    assert {urllib3.exceptions.NameResolutionError, http.client.RemoteDisconnected} <= set(SYNC)
    assert {aiohttp.ClientConnectorDNSError, aiohttp.ServerDisconnectedError} <= set(ASYNC)
    assert {socket.gaierror, ssl.SSLEOFError, BrokenPipeError} <= set(SYSTEM)


@pytest.mark.parametrize("kind", [*SYNC, *SYSTEM, ChunkedError, ValueError], ids=lambda kind: kind.__name__)
def test_every_sync_exception_is_translated(kind: type[Exception]) -> None:
    """This holds for the exception itself and for urllib3's wrapper: `ProtocolError("Connection aborted.", error)`."""
    error = made(kind)
    assert isinstance(error, Exception)
    check(errors.translate(error, REQUEST))
    check(errors.translate(urllib3.exceptions.ProtocolError("Connection aborted.", error), REQUEST))


@pytest.mark.parametrize("kind", [*ASYNC, *SYSTEM, ValueError], ids=lambda kind: kind.__name__)
def test_every_async_exception_is_translated(kind: type[Exception]) -> None:
    """Every exception of aiohttp has one of our classes, too."""
    error = made(kind)
    assert isinstance(error, Exception)
    check(translated_async(error))


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


X = urllib3.exceptions
SYNC_MEANINGS = [
    (X.NewConnectionError(VALUES["conn"], "refused"), ServerUnreachableError),
    (X.NameResolutionError("lm.test", VALUES["conn"], socket.gaierror(-2, "not known")), ServerUnreachableError),
    (X.ConnectTimeoutError(VALUES["conn"], "slow"), RequestTimeoutError),
    (X.LocationParseError("lm test"), ConfigurationError),
    (X.ProxyError("no proxy", REFUSED), ServerUnreachableError),
    (X.SSLError("self-signed"), TransportError),
    (X.ProtocolError("Connection aborted.", http.client.RemoteDisconnected("bye")), ConnectionLostError),
    (X.ProtocolError("Connection aborted.", http.client.BadStatusLine("SSH-2.0")), MalformedStreamError),
    (X.ProtocolError("Connection broken", http.client.IncompleteRead(b"")), ConnectionLostError),
    (X.IncompleteRead(1, 2), ConnectionLostError),
    (X.ProtocolError("Connection aborted.", ConnectionResetError(errno.ECONNRESET, "reset")), ConnectionLostError),
    (X.ProtocolError("Connection aborted.", BrokenPipeError(errno.EPIPE, "pipe")), ConnectionLostError),
    (X.DecodeError("gzip"), MalformedStreamError),
    (ChunkedError("size"), MalformedStreamError),
    (http.client.LineTooLong("header line"), MalformedStreamError),
    (OSError(errno.EHOSTUNREACH, "No route to host"), ConnectionLostError),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), ConnectionLostError),
]  # fmt: skip


@pytest.mark.parametrize(("error", "expected"), SYNC_MEANINGS, ids=lambda value: repr(value)[:60])
def test_what_sync_exceptions_mean(error: Exception, expected: type[LMStudioError]) -> None:
    """The most specific class is chosen, also for an exception below a wrapper."""
    assert type(errors.translate(error, REQUEST)) is expected


ASYNC_MEANINGS = [
    (aiohttp.ClientConnectorError(KEY, REFUSED), ServerUnreachableError),
    (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")), ServerUnreachableError),
    (aiohttp.ClientConnectorCertificateError(KEY, VALUES["certificate_error"]), TransportError),
    (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "record layer")), TransportError),
    (aiohttp.ClientProxyConnectionError(KEY, REFUSED), ServerUnreachableError),
    (aiohttp.ConnectionTimeoutError("slow"), RequestTimeoutError),
    (aiohttp.InvalidURL("lm test"), ConfigurationError),
    (aiohttp.ServerDisconnectedError(), ConnectionLostError),
    (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), ConnectionLostError),
    (aiohttp.ClientConnectionResetError("closing"), ConnectionLostError),
    (caused(aiohttp.ClientPayloadError("cut"), ContentLengthError("half")), ConnectionLostError),
    (caused(aiohttp.ClientPayloadError("cut"), TransferEncodingError("half")), ConnectionLostError),
    (caused(aiohttp.ClientPayloadError("bad"), ContentEncodingError("gzip")), MalformedStreamError),
    (aiohttp.ClientResponseError(INFO, (), status=400, message="bad"), MalformedStreamError),
    (ConnectionResetError(errno.ECONNRESET, "reset"), ConnectionLostError),
    (OSError(errno.EHOSTUNREACH, "No route to host"), ConnectionLostError),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), ConnectionLostError),
]


@pytest.mark.parametrize(("error", "expected"), ASYNC_MEANINGS, ids=lambda value: repr(value)[:60])
def test_what_async_exceptions_mean(error: Exception, expected: type[LMStudioError]) -> None:
    """Both clients raise the same class for the same cause."""
    assert type(translated_async(error)) is expected


WORDS = "words of a library <aiohttp.Thing object at 0x7f>"


@pytest.mark.parametrize("kind", [*SYNC, *ASYNC], ids=lambda kind: kind.__name__)
def test_no_words_of_a_library_are_in_a_message(kind: type[Exception]) -> None:
    """They speak of its classes, settings and objects, which are not the caller's; the cause still has them."""
    try:
        error = kind(WORDS)
    except TypeError:
        error = made(kind)
        error.args = (*error.args, WORDS)
    message = (errors.translate(error, REQUEST) if kind in SYNC else translated_async(error)).message
    if kind not in {http.client.BadStatusLine, http.client.RemoteDisconnected}:  # which quote the server's own line
        assert WORDS not in message
    for name in ("aiohttp", "urllib3", "HTTPConnection", "Errno", "Exception(", "Error("):
        assert name not in message.replace(WORDS, "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (X.NewConnectionError(VALUES["conn"], "x"), "Nothing answers"),
        (caused(X.NewConnectionError(VALUES["conn"], "x"), REFUSED), "connection refused"),
        (X.ProtocolError("x", ConnectionResetError(errno.ECONNRESET, "x")), "connection reset by peer"),
        (X.SSLError(ssl.SSLCertVerificationError(1, "x")), "TLS failed"),
        (
            X.ProxyError("x", caused(X.NewConnectionError(VALUES["conn"], "x"), REFUSED)),
            "proxy failed: connection refused",
        ),
        (aiohttp.ClientConnectorError(KEY, REFUSED), "connection refused"),
        (aiohttp.ClientOSError(errno.ECONNRESET, "x"), "connection reset by peer"),
        (aiohttp.ClientHttpProxyError(INFO, (), status=407), "it answered 407"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_reason_is_the_system_s(error: Exception, words: str) -> None:
    """It has the system's words, which can be looked up."""
    is_async = isinstance(error, aiohttp.ClientError)
    assert words in (translated_async(error) if is_async else errors.translate(error, REQUEST)).message


@pytest.mark.parametrize(
    ("server", "reason", "port"),
    [
        ("http://lm.test", REFUSED, "80"),
        ("https://lm.test", REFUSED, "443"),
        ("http://lm.test:1234", REFUSED, ""),
        ("http://lm.test", socket.gaierror(-2, "not known"), ""),
    ],
)
def test_an_address_without_a_port_is_reported(server: str, reason: OSError, port: str) -> None:
    """Port 80 was tried, and LM Studio's own is 1234; a name that leads nowhere has another cause."""
    request = replace(REQUEST, url=f"{server}/v1/models")
    made_by = (
        errors.translate(caused(X.NewConnectionError(VALUES["conn"], "x"), reason), request),
        aiohttp_transport.translate(
            aiohttp.ClientConnectorError(KEY, reason), request.url, Deadlines(request.timeouts)
        ),
    )
    for error in made_by:
        assert error.message.startswith(f"Nothing answers at {server}:")
        assert (f"port, so {port} was tried" in error.hint and f"{server}:1234" in error.hint) is bool(port)
