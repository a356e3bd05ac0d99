"""The reason of a failed connection, as reported by the system or OpenSSL."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from lmdeck.errors import ServerUnreachableError, describe

MAX_DEPTH = 10
DEFAULT_PORTS = {"http": 80, "https": 443}
NO_PORT = (
    "The address names no port, so {port} was tried: add LM Studio's, as in {server}:1234, or start the proxy there."
)


def unreachable(server: str, error: BaseException) -> ServerUnreachableError:
    """Return the error for a server at which nothing answers.

    If the connection was refused and the address has no port, the hint names LM Studio's.
    """
    parts = urlsplit(server)
    is_refused = any(isinstance(each, ConnectionRefusedError) for each in _chain(error))
    port = DEFAULT_PORTS.get(parts.scheme) if is_refused and parts.port is None else None
    hint = None if port is None else NO_PORT.format(port=port, server=server)
    return ServerUnreachableError(f"Nothing answers at {server}{reason_of(error)}.", hint=hint)


def reason_of(error: BaseException | None) -> str:
    """Return the reason as the end of a sentence, such as `: connection refused`, or `""`."""
    for each in _chain(error):
        reason = _own_reason(each)
        if reason:
            return f": {describe(reason).rstrip('.').lower()}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the ones that it wraps, the outermost first."""
    for _ in range(MAX_DEPTH):
        if error is None:
            return
        yield error
        error = _wrapped_error(error)


def _own_reason(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or ""
        return str(reason).replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        # Negative numbers are errors of a name look-up, which have their own text.
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    return None


def _wrapped_error(error: BaseException) -> BaseException | None:
    """Return the error that an HTTP library wrapped, as an argument or as the cause."""
    inner: BaseException | None = next((each for each in error.args if isinstance(each, BaseException)), None)
    return inner or error.__cause__ or error.__context__
