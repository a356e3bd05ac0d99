"""Errors of the gateway itself that several of its modules raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck.errors import ServerError

__all__ = ["SHUTTING_DOWN", "internal_error", "no_host_available", "shutting_down"]

SHUTTING_DOWN: Mapping[str, Any] = {
    "message": "The gateway is shutting down.",
    "status": 503,
    "code": "shutting_down",
    "hint": "Send the request again.",
    "retry_after": 1.0,
}


def shutting_down() -> ServerError:
    """Return the error for a request that a shutdown refuses or ends."""
    return ServerError(**SHUTTING_DOWN)


def no_host_available(message: str, retry_after: float = 2.0) -> ServerError:
    """Return the error for a request that no host can answer now; `retry_after` is in seconds."""
    return ServerError(
        message,
        status=503,
        code="no_host_available",
        hint="Send the request again in a few seconds; `/gateway/status` shows the state of the hosts.",
        retry_after=retry_after,
    )


def internal_error(error: Exception) -> ServerError:
    """Return a safe error for an unexpected exception: its type, without its text."""
    return ServerError(
        f"The gateway failed while answering ({type(error).__name__}).",
        status=500,
        hint="The gateway's log has the details.",
    )
