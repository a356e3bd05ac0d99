"""Why a connection failed, in the system's or OpenSSL's words, never in those of an HTTP library."""

from __future__ import annotations

import os
import ssl

from lmdeck.errors import describe

__all__ = ["because"]

DEEPEST = 10


def because(error: BaseException | None) -> str:
    """Return the reason as the end of a sentence, `: connection refused`; nothing where none is known."""
    for _ in range(DEEPEST):
        if error is None:
            break
        words = _words(error)
        if words:
            return f": {describe(words).rstrip('.').lower()}"
        error = _beneath(error)
    return ""


def _words(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", None) or getattr(error, "reason", None) or ""
        return str(said).replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        # Below 0 is a name look-up's, which has words of its own.
        return os.strerror(error.errno) if error.errno > 0 else error.strerror
    return None


def _beneath(error: BaseException) -> BaseException | None:
    """Return what an HTTP library wrapped: as an argument, or as the cause."""
    inner: BaseException | None = next((each for each in error.args if isinstance(each, BaseException)), None)
    return inner or error.__cause__ or error.__context__
