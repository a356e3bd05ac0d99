"""What the errors of the `mcp` package mean for a connection and its calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmdeck.errors import printable

if TYPE_CHECKING:
    from mcp import MCPError


class Unreachable(Exception):  # internal: translated into a ToolError
    """A connection could not be opened."""


class ConnectionLost(Exception):  # internal: translated into a ToolFailed
    """A connection broke during a call."""

    def __init__(self, reason: str, *, may_have_started: bool) -> None:
        super().__init__(reason)
        self.may_have_started = may_have_started


def is_refused(error: BaseException) -> bool:
    """Whether an error, or every error of a group, means that no connection was made."""
    import httpx2

    if isinstance(error, BaseExceptionGroup):
        return all(map(is_refused, error.exceptions))
    return isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))


def is_timeout(error: MCPError) -> bool:
    """Whether mcp stopped waiting.

    A server may use the same code for a session that it does not know.
    """
    from mcp.types import REQUEST_TIMEOUT

    return error.code == REQUEST_TIMEOUT and error.message.endswith("timed out")


def is_closed(error: MCPError) -> bool:
    """Whether mcp lost the connection.

    A server may use the same code for any error of its own.
    """
    from mcp.types import CONNECTION_CLOSED

    return error.code == CONNECTION_CLOSED and error.message.startswith(("Connection closed", "SSE stream "))


def server_words(error: MCPError) -> str:
    """Return a server's own message, with the details that it sent as data.

    Source: JSON-RPC 2.0, section 5.1.
    """
    data = error.error.data
    details = (
        "" if data in (None, "") else f" ({data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)})"
    )
    return printable(f"{error.message or f'error {error.code}'}{details}")


def describe_failure(error: BaseException) -> str:
    """Return a description of an error, or of the first one in a group."""
    from anyio import BrokenResourceError, ClosedResourceError, EndOfStream
    from mcp import MCPError
    from mcp.types import PARSE_ERROR

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Unreachable):
        return str(error)
    if isinstance(error, (BrokenResourceError, ClosedResourceError, EndOfStream)) or (
        isinstance(error, MCPError) and is_closed(error)
    ):
        return "it closed the connection"
    is_unreadable = isinstance(error, MCPError) and error.code == PARSE_ERROR
    if is_unreadable or isinstance(error, ValueError):  # the latter is pydantic's
        return "its answer does not follow the protocol"
    if isinstance(error, MCPError):
        return f"it answered with an error: {server_words(error)}"
    return f"{type(error).__name__}: {printable(str(error))}"
