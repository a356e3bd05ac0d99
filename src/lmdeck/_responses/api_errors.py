"""The server's error responses, in all their formats, as typed errors.

In LM Studio, a model crash has status 400 and an unknown path 200. So the message decides first, then the code, then a status
that code, type or message name, and last the status of the response.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmdeck._late_patterns import late_pattern
from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_bodies import ErrorInfo, read_error
from lmdeck._responses.error_codes import CODES, FIELD_CODES, STATUSES, TYPES
from lmdeck._responses.error_expressions import LOADING
from lmdeck._responses.error_patterns import BROAD, ENGINE, PATH, PHRASES, VALIDATION
from lmdeck._responses.hints.embeddings import EMBEDDING_MODEL
from lmdeck._responses.hints.order import hint_for_message, hint_for_topic
from lmdeck._responses.json_bodies import TEXT_CHARS, decoded_or_text
from lmdeck._responses.overflow_counts import overflow_counts
from lmdeck._responses.own_words import own_words, without_values
from lmdeck._responses.proxy_pages import gateway_hint, proxy_hint
from lmdeck._secret import redact_url
from lmdeck.errors import (
    APIError,
    ContextLengthError,
    InvalidRequestError,
    LMStudioError,
    ModelNotFoundError,
    NoModelLoadedError,
    ServerError,
    printable,
)

SHORT_MESSAGE = 80  # characters; longer messages are clear without the name of the field
_NAME = late_pattern(r"(['\"`])[\w./:@\[\]-]{1,80}\1")  # a quoted name is a value, also if it reads like an error
_CODE = late_pattern(r"\b[a-z]+(?:_[a-z]+)+\b", re.IGNORECASE)


def api_error(
    status: int, body: bytes | object, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> APIError:
    """Return the typed error for a response's status, body (bytes or decoded) and headers."""
    decoded = decoded_or_text(body) if isinstance(body, (bytes, bytearray, memoryview)) else body
    info = read_error(decoded, status)
    kind = _kind(info, status)
    details: dict[str, Any] = {
        "status": status,
        "type": info.type,
        "code": info.code,
        "param": info.param,
        "body": decoded,
        "hint": _hint(info, status, kind) or _endpoint_hint(kind, path) or _redirect_hint(status, headers or {}),
        "retry_after": retry_after_seconds(headers or {}),
    }
    if kind is ModelNotFoundError:
        details["available"] = _available(info.message)
    if kind is ContextLengthError:
        details["prompt_tokens"], details["context_length"] = overflow_counts(info)
    where = f"{path}: " if path else ""
    return kind(printable(f"{where}{_sentence(_with_param(info))}")[:TEXT_CHARS], **details)


def retry_after_seconds(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the delay of `Retry-After` or `retry-after-ms` in seconds, or None.

    Because clocks differ, a date is relative to the `Date` of the response or, without it, to `now` (seconds since 1970).

    Source: RFC 9110, section 10.2.3.
    """
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "").strip()
    if milliseconds and _is_number(milliseconds):
        return max(float(milliseconds) / 1000, 0.0)
    if _is_number(value):
        return max(float(value), 0.0)
    until, since = _timestamp(value), _timestamp(headers.get("date", ""))
    start = since if since is not None else now
    return None if until is None or start is None else max(until - start, 0.0)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,9}(\.\d{0,6})?", text.strip()) is not None


def _timestamp(text: str) -> float | None:
    if not text:
        return None
    import email.utils  # imported late: dates are rare and the package is large

    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def is_loading(error: LMStudioError) -> bool:
    """Whether the server refused because its model is still loading, as llama.cpp does with 503."""
    if not isinstance(error, ServerError) or not LOADING.search(error.message):
        return False
    return "503" in {str(error.status), error.code} or error.type == "unavailable_error" or "503" in error.message


def _kind(info: ErrorInfo, status: int) -> type[APIError]:
    if info.type in TYPES:  # a misconfigured plugin or MCP server has a 4xx, a failing one does not
        return InvalidRequestError if 400 <= status < 500 else TYPES[info.type][0]
    if info.code in FIELD_CODES and info.param != "model":
        return InvalidRequestError
    words = own_words(info.message)
    unquoted = _NAME.sub("''", words)
    if kind := _first(PHRASES, words) or _of_code(info, unquoted):
        return kind
    if status in STATUSES and status != 404:
        return STATUSES[status]
    if kind := _first(BROAD, unquoted) or _overflow(info):
        return kind
    if info.status is not None and status != info.status:
        return _kind_of_status(info, info.status)
    if info.status is None and ENGINE.search(unquoted):
        return ServerError
    if status == 404 and (info.param or (VALIDATION.search(words) and not PATH.search(words))):  # mlx-lm #1693
        return ModelNotFoundError if info.param == "model" else InvalidRequestError
    return _kind_of_status(info, status)


def _of_code(info: ErrorInfo, words: str) -> type[APIError] | None:
    """Return the error of the first known code in the fields, or among the words of the message."""
    codes = [word.lower() for word in (info.code, info.type, *_CODE.findall(words)) if word]
    return next((CODES[code] for code in codes if code in CODES), None)


def _overflow(info: ErrorInfo) -> type[APIError] | None:
    """Return the error of a prompt with more tokens than its context, or None."""
    tokens, length = overflow_counts(info)
    return ContextLengthError if tokens and length and tokens > length and "token" in info.message else None


def _first(patterns: list[tuple[AnyPattern, type[APIError]]], words: str) -> type[APIError] | None:
    return next((kind for pattern, kind in patterns if pattern.search(words)), None)


def _kind_of_status(info: ErrorInfo, status: int) -> type[APIError]:
    """Return the error class of a status.

    An unknown message with a success status is a failure of the server.
    """
    if status in STATUSES:
        return STATUSES[status]
    if status >= 500:
        return ServerError
    if status >= 400 or info.type in {"invalid_request", "invalid_request_error"} or VALIDATION.search(info.message):
        return InvalidRequestError
    return ServerError if 200 <= status < 300 else APIError


def _hint(info: ErrorInfo, status: int, kind: type[APIError]) -> str | None:
    """Return a hint that is more specific than that of the class, or None."""
    if info.type in TYPES:
        return TYPES[info.type][1]
    proxy = proxy_hint(info.page_status or status, is_page=info.is_page, is_bare=info.is_bare)
    if info.is_page:
        return proxy
    message = without_values(_with_param(info, always=True))
    return hint_for_message(message) or proxy or hint_for_topic(message, kind) or gateway_hint(status, kind)


def _endpoint_hint(kind: type[APIError], path: str) -> str | None:
    """Return the hint of an error at this endpoint, or None if that of its class fits."""
    return EMBEDDING_MODEL if kind is NoModelLoadedError and path.endswith("/embeddings") else None


def _redirect_hint(status: int, headers: Mapping[str, str]) -> str | None:
    """Return a hint with the target of a redirect, or None.

    Redirects are not followed, so that token and prompt are not sent to another server.
    """
    if not 300 <= status < 400:
        return None
    return f"The server redirects to {redact_url(headers.get('location', 'nowhere'))[:200]}: set `base_url` to that server."


def _available(message: str) -> list[str]:
    """Return the ids that LM Studio lists after "Your models:" in the error for an unknown name."""
    _, _, listed = message.partition("Your models:")
    return [line.strip() for line in listed.splitlines() if line.strip()]


def _with_param(info: ErrorInfo, *, always: bool = False) -> str:
    """Return the message, with the name of the field if it is short, such as "Required"."""
    is_long = len(info.message) > SHORT_MESSAGE and not always
    if not info.param or is_long or info.param in info.message:
        return info.message
    return f"{info.param}: {info.message}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
