"""The reason of a failed connection, as reported by the system or OpenSSL."""

from __future__ import annotations

import os
import ssl

from lmdeck.errors import describe

MAX_DEPTH = 10


def reason_of(error: BaseException | None) -> str:
    """Return the reason as the end of a sentence, such as `: connection refused`, or `""`."""
    for _ in range(MAX_DEPTH):
        if error is None:
            break
        reason = _own_reason(error)
        if reason:
            return f": {describe(reason).rstrip('.').lower()}"
        error = _wrapped_error(error)
    return ""


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
