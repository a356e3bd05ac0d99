"""The server's error responses, in all their formats, as typed errors.

LM Studio reports an error as a bare string, an object, a JSON array inside a string, in Anthropic's format, or as JSON after a
sentence; a model crash has status 400 and an unknown path 200. So the message decides first, then the code, then a status in
the message, and last the status of the response.

Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker: since 0.4.19, the engine is a llama-server whose errors
are quoted (#2182, #2257).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from lmdeck._late_patterns import late_pattern
from lmdeck._responses.error_patterns import (
    CODES,
    CONTEXT_LENGTHS,
    ENGINE,
    LOADING,
    PHRASES,
    PROMPT_LENGTHS,
    STATUSES,
    TYPES,
    VALIDATION,
    AnyPattern,
)
from lmdeck._responses.hints import hint_for_message, hint_for_topic
from lmdeck._responses.proxy_pages import proxy_hint
from lmdeck._secret import redact_url
from lmdeck.errors import (
    APIError,
    ContextLengthError,
    InvalidRequestError,
    LMStudioError,
    ModelNotFoundError,
    ServerError,
    describe,
    printable,
)

SHORT_MESSAGE = 80  # characters; longer messages are clear without the name of the field
NESTING_LIMIT = 8
TEXT_CHARS = 4000
MESSAGE_FIELDS = ("title", "message", "detail", "msg", "reason", "errors")
_DECODER = json.JSONDecoder()
_OPENERS = late_pattern(r"[\[{]")
_QUOTED_REQUEST = late_pattern(r"; (?:messages|tools) = [\[{].*", re.DOTALL)  # llama.cpp's, after its message
_RETURNED = late_pattern(r"\b(?:returned|(?:status|error)(?: code)?:?) ([45]\d\d)\b", re.IGNORECASE)


class ErrorInfo(Struct, frozen=True, kw_only=True):
    """The contents of an error body."""

    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None
    is_page: bool = False  # whether the body is a web page
    is_bare: bool = False  # whether the body is not JSON

    @property
    def status(self) -> int | None:
        """The HTTP status named by the code or the message, or None."""
        if self.code and re.fullmatch(r"[45]\d\d", self.code):
            return int(self.code)
        named = _RETURNED.search(self.message)
        return int(named[1]) if named else None


def api_error(
    status: int, body: bytes | object, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> APIError:
    """Return the typed error for a response's status, body (bytes or decoded) and headers."""
    decoded = decoded_or_text(body) if isinstance(body, (bytes, bytearray, memoryview)) else body
    info = _read(decoded, status)
    kind = _kind(info, status)
    details: dict[str, Any] = {
        "status": status,
        "type": info.type,
        "code": info.code,
        "param": info.param,
        "body": decoded,
        "hint": _hint(info, status, kind) or _redirect_hint(status, headers or {}),
        "retry_after": retry_after_seconds(headers or {}),
    }
    if kind is ModelNotFoundError:
        details["available"] = _available(info.message)
    if kind is ContextLengthError:
        details["prompt_tokens"], details["context_length"] = _token_counts(info.message)
    where = f"{path}: " if path else ""
    return kind(printable(f"{where}{_sentence(_with_param(info))}")[:TEXT_CHARS], **details)


def is_error_body(decoded: object) -> bool:
    """Whether a decoded body or event is an error despite the status 200."""
    if not isinstance(decoded, Mapping):
        return False
    if decoded.get("choices"):
        return False
    return bool(decoded.get("error")) or "error" in (decoded.get("type"), decoded.get("object"))


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


def decoded_or_text(body: bytes | bytearray | memoryview) -> object:
    """Return a body decoded from JSON, or as text if it is not JSON; invalid UTF-8 is replaced."""
    text = bytes(body).decode("utf-8-sig", "replace")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text[:TEXT_CHARS].strip()


def is_loading(error: LMStudioError) -> bool:
    """Whether the server refused because its model is still loading, as llama.cpp does with 503."""
    if not isinstance(error, ServerError) or not LOADING.search(error.message):
        return False
    return "503" in {str(error.status), error.code} or error.type == "unavailable_error" or "503" in error.message


def _read(decoded: object, status: int) -> ErrorInfo:
    """Return message, type, code and param of a nested error.

    The innermost values describe the cause.
    """
    error = decoded
    sentences: list[str] = []
    found: dict[str, str | None] = {"type": None, "code": None, "param": None}
    for _ in range(NESTING_LIMIT):
        if isinstance(error, str) and (quoted := _embedded_json(error)):
            sentence, error = quoted
            sentences += [sentence] if sentence else []
        if not isinstance(error, Mapping):
            break
        for name in found:
            value = error.get(name)
            if value is not None and not (name == "type" and value == "error"):
                found[name] = str(value)
        found["code"] = found["code"] or _status_of(error)
        error = _message_of(error)
    return ErrorInfo(
        message=": ".join([*sentences, _message(error, status)]),
        is_page=isinstance(error, str) and _looks_like_html(error),
        is_bare=isinstance(decoded, str),
        **found,
    )


def _status_of(error: Mapping[str, Any]) -> str | None:
    """Return the HTTP status that an error object gives as a number."""
    statuses = (error.get(name) for name in ("statusCode", "status_code", "status"))
    return next((str(status) for status in statuses if isinstance(status, int) and 400 <= status < 600), None)


def _embedded_json(text: str) -> tuple[str, object] | None:
    """Return a sentence and the JSON error object or list of issues after it, or None."""
    for start in itertools.islice(_OPENERS.finditer(text), NESTING_LIMIT):
        try:
            value, _ = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Mapping) and any(first.get(name) for name in ("error", *MESSAGE_FIELDS)):
            return text[: start.start()].rstrip(" :\n"), value
    return None


def _message_of(error: Mapping[str, Any]) -> object:
    """Return the inner error of an error object, or its message with its cause.

    Servers name the message differently: LM Studio `title`, FastAPI `detail`, others `msg`, `reason` or a list of `errors`;
    NestJS and Spring have the name of the status in `error`, and the message beside it.
    """
    inner, cause = error.get("error"), error.get("cause")
    message = next((error[name] for name in MESSAGE_FIELDS if error.get(name)), None)
    if inner and not (isinstance(inner, str) and isinstance(message, str) and message not in inner):
        return inner
    parts = [each for each in (inner, message, cause) if each]
    if len(parts) < 2:
        return parts[0] if parts else str(dict(error) or "")
    return ": ".join(each if isinstance(each, str) else _text_of(each) for each in parts)


def _text_of(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _message(error: object, status: int) -> str:
    if isinstance(error, list) and error:
        return "; ".join(_issue(issue) for issue in error[:8])
    if error is None or error == "":
        return f"the server answered {status} without a message"
    if isinstance(error, str) and _looks_like_html(error):
        return f"the server answered {status} with a web page, not JSON: {describe(_without_tags(error))}"
    return error[:TEXT_CHARS] if isinstance(error, str) else describe(str(error), TEXT_CHARS)


def _issue(issue: object) -> str:
    if not isinstance(issue, Mapping):
        return describe(str(issue))
    path = issue.get("path", issue.get("loc"))  # the names of Zod and pydantic
    where = ".".join(str(step) for step in path) if isinstance(path, list) else ""
    text = str(issue.get("message") or issue.get("msg") or issue.get("code") or describe(str(dict(issue))))
    received = f" (received {issue['received']})" if issue.get("received") else ""
    return f"{where}: {text}{received}" if where else text + received


def _looks_like_html(text: str) -> bool:
    return re.match(r"\s*<(\?xml|!--|(!doctype|html|head|body|title|center|h1)\b)", text, re.IGNORECASE) is not None


def _without_tags(text: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>|<[^>]{0,500}>", " ", text, flags=re.IGNORECASE | re.DOTALL)


def _kind(info: ErrorInfo, status: int) -> type[APIError]:
    if info.type in TYPES:  # a misconfigured plugin or MCP server has a 4xx, a failing one does not
        return InvalidRequestError if 400 <= status < 500 else TYPES[info.type][0]
    words = _QUOTED_REQUEST.sub("", info.message)
    for phrase, kind in PHRASES:
        if phrase.search(words):
            return kind
    for word in (info.code, info.type):
        if word in CODES:
            return CODES[word]
    if status not in STATUSES and info.status is not None:
        return _kind_of_status(info, info.status)
    if status not in STATUSES or status == 404:  # mlx_lm.server reports every failure with 404 (mlx-lm #1693)
        if ENGINE.search(info.message):
            return ServerError
        if status == 404 and (info.param or VALIDATION.search(info.message)):
            return ModelNotFoundError if info.param == "model" else InvalidRequestError
    return _kind_of_status(info, status)


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
    return APIError if status >= 300 else ServerError


def _hint(info: ErrorInfo, status: int, kind: type[APIError]) -> str | None:
    """Return a hint that is more specific than that of the class, or None."""
    if info.type in TYPES:
        return TYPES[info.type][1]
    proxy = proxy_hint(status, is_page=info.is_page, is_bare=info.is_bare)
    if info.is_page:
        return proxy
    message = _QUOTED_REQUEST.sub("", _with_param(info, always=True))
    return hint_for_message(message) or proxy or hint_for_topic(message, kind)


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


def _token_counts(message: str) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the context, as far as the message has them."""
    message = _RETURNED.sub("", message)
    limit = _count(CONTEXT_LENGTHS, message)
    prompt = _count(PROMPT_LENGTHS, message)
    return (None if prompt == limit else prompt), limit


def _count(patterns: list[AnyPattern], message: str) -> int | None:
    found = next((match for pattern in patterns if (match := pattern.search(message))), None)
    return int(found["count"].replace(",", "")) if found else None


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
