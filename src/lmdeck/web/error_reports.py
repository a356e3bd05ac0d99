"""Errors as visitors see them: with details in development, otherwise a neutral sentence.

A number names the log entry with the details.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from html import escape
from string import Template

import msgspec
from msgspec import Struct

from lmdeck.errors import (
    APIError,
    ConfigurationError,
    ContextLengthError,
    InvalidRequestError,
    LMStudioError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    RateLimitError,
    RequestTimeoutError,
    ServerUnreachableError,
    ToolError,
)
from lmdeck.web.store_errors import ConversationsError

_log = logging.getLogger("lmdeck.web")

SEE_LOG = "The traceback is in the site's log."
_STATUSES: tuple[tuple[type[LMStudioError], int], ...] = (
    (ContextLengthError, 413),
    (RateLimitError, 503),
    (NoModelLoadedError, 503),
    (ModelNotFoundError, 503),
    (ModelLoadError, 503),
    (ServerUnreachableError, 503),
    (ConversationsError, 503),
    (RequestTimeoutError, 504),
    (InvalidRequestError, 500),
    (ConfigurationError, 500),
    (ToolError, 500),
)
"""The status for each kind of error.

413: the text is too long; 500: an error of the site; 502: of the model's answer; 503: the model is not available; 504: it is
too slow.
"""
_SENTENCES = {
    413: "The text is too long for the model: make it shorter.",
    500: "Something went wrong on this site.",
    502: "The model's answer was not usable.",
    503: "The model is not available right now.",
    504: "The model took too long to answer.",
}
_PAGE = Template("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>$message</title></head>
<body><h1>$message</h1><p>$hint</p><p><small>$request_id</small></p></body>
</html>
""")


class PageErrorResponse(Struct, frozen=True, kw_only=True):
    """The HTTP answer to a request that ended with an error."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def report(error: Exception, what: str, *, with_details: bool) -> LMStudioError:
    """Log an error and return the one to show: itself, or a neutral one with a log number.

    `what` is a sentence for visitors. With `with_details`, an error of the application's own code is named, too.
    """
    number = getattr(error, "request_id", None) or f"req_{secrets.token_hex(8)}"
    _log.warning("%s (%s) %s", what, number, error, exc_info=None if isinstance(error, LMStudioError) else error)
    if with_details and isinstance(error, LMStudioError):
        error.request_id = number
        return error
    if with_details:
        shown = LMStudioError(f"{what} {type(error).__name__}: {error}", hint=SEE_LOG)
    else:
        hint = f"Try again. If it fails again, report the number {number} to the owner of this site."
        shown = LMStudioError(what, hint=hint)
    shown.request_id = number
    return shown


def error_answer(error: LMStudioError, *, accept: str, with_details: bool) -> PageErrorResponse:
    """Return the answer of a view that raised `error`.

    It is a page if the `Accept` header prefers HTML, otherwise JSON.

    The status is 413, 500, 502, 503 or 504: never one that blames the visitor for the site's token or model.
    """
    status = status_of(error)
    shown = report(error, _SENTENCES[status], with_details=with_details)
    fields = {"message": shown.message, "hint": shown.hint, "request_id": shown.request_id or ""}
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept"}
    if isinstance(error, APIError) and error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if not prefers_html(accept):
        body = {"error": {"type": type(error).__name__, **fields} if with_details else fields}
        return PageErrorResponse(
            status=status, headers={**headers, "Content-Type": "application/json"}, body=msgspec.json.encode(body)
        )
    page = _PAGE.substitute({name: escape(text) for name, text in fields.items()})
    headers = {**headers, "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "default-src 'none'"}
    return PageErrorResponse(status=status, headers=headers, body=page.encode())


def sentence_for(error: Exception, otherwise: str) -> str:
    """Return a sentence that helps a visitor, else `otherwise`.

    It says that the model is unavailable or too slow, or the text too long.
    """
    status = status_of(error) if isinstance(error, LMStudioError) else 500
    return _SENTENCES[status] if status in {413, 503, 504} else otherwise


def status_of(error: LMStudioError) -> int:
    """Return the status for a visitor; 502 unless the error is more specific."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 502)


def prefers_html(accept: str) -> bool:
    """Whether HTML is accepted by name, and JSON is not.

    Browsers name HTML when they open a page.
    """
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "text/html" in types and "application/json" not in types
