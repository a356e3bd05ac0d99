"""lmdeck's errors in the clients' wire formats: an error status, the message, and the hint."""

from __future__ import annotations

import re
from typing import Any

from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    ContextLengthError,
    EmptyReplyError,
    EndpointNotFoundError,
    InvalidRequestError,
    LMStudioError,
    ModelCrashedError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
    StreamError,
    TemplateError,
    ToolCallParseError,
    ToolError,
    TransportError,
)

__all__ = ["anthropic_error", "error_headers", "openai_error", "status_of"]

_STATUSES: tuple[tuple[type[LMStudioError], int], ...] = (
    (AuthenticationError, 401),
    (EndpointNotFoundError, 404),
    (ModelNotFoundError, 404),
    (NoModelLoadedError, 404),
    (ContextLengthError, 400),
    (RateLimitError, 429),
    (ModelCrashedError, 503),
    (ServerError, 500),
    (ModelLoadError, 503),
    (InvalidRequestError, 400),
    (TemplateError, 400),
    (APIError, 502),  # a redirect, or an unknown error with a status below 400
    (ServerUnreachableError, 503),
    (RequestTimeoutError, 504),
    (ConnectionLostError, 502),
    (TransportError, 502),
    (StreamError, 502),
    (EmptyReplyError, 502),
    (ToolCallParseError, 502),
    (ConfigurationError, 400),
    (ToolError, 400),
)
_CODES: dict[type[LMStudioError], str] = {
    AuthenticationError: "invalid_api_key",
    ContextLengthError: "context_length_exceeded",
    ModelNotFoundError: "model_not_found",
    RateLimitError: "rate_limit_exceeded",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {**_TYPES, 413: "request_too_large", 503: "overloaded_error", 529: "overloaded_error"}
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def status_of(error: LMStudioError) -> int:
    """Return the HTTP status of an error: the server's status if it is 400 or above.

    LM Studio reports an unknown path and an overflow of the context with status 200.
    """
    if isinstance(error, APIError) and error.status >= 400:
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def error_headers(error: LMStudioError) -> dict[str, str]:
    """Return the headers of an error's response.

    `x-should-retry` prevents retries by the clients of OpenAI and Anthropic, since lmdeck has already retried.
    """
    headers = {"content-type": "application/json", "x-should-retry": "false", "x-lmdeck-error": type(error).__name__}
    if isinstance(error, APIError) and error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    return headers


def openai_error(error: LMStudioError) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    status = status_of(error)
    sent = error if isinstance(error, APIError) else None
    kind = (sent and sent.type) or _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": str(error),
            "type": kind,
            "param": sent.param if sent else None,
            "code": (sent and sent.code) or _code(error),
            "hint": error.hint,
        }
    }


def anthropic_error(error: LMStudioError) -> dict[str, Any]:
    """Return an error in Anthropic's form."""
    status = status_of(error)
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": str(error), "hint": error.hint}}


def _code(error: LMStudioError) -> str:
    known = _CODES.get(type(error))
    return known or _WORD.sub("_", type(error).__name__.removesuffix("Error")).lower()
