"""The server's refusals, in all the shapes they come in, as errors that say what to do.

LM Studio answers an error as a bare string, as an object, as a JSON array inside a string, in Anthropic's form, or nested
as text inside another message; a crash of the model is a 400 and an unknown path a 200. So the words decide first, then the
code, and the status last. Sources: LM Studio docs `2_rest`, and reports in lmstudio-bug-tracker as numbered below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from lmdeck._responses.error_patterns import CODES, HINTS, PHRASES, STATUSES, TOKEN_COUNTS, TYPES
from lmdeck._secret import redact_url
from lmdeck.errors import (
    APIError,
    ContextLengthError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerError,
    describe,
)

__all__ = ["api_error", "decoded_or_text", "refusal_in", "retry_after_seconds"]


BARE_MESSAGE = 80
NESTING_LIMIT = 4
TEXT_CHARS = 4000


class Fault(Struct, frozen=True, kw_only=True):
    """What a body says of an error."""

    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None


def api_error(
    status: int, body: bytes | object, headers: Mapping[str, str] | None = None, *, path: str = ""
) -> APIError:
    """Make the error that a refusal means, from its status, its body (bytes, or decoded already) and its headers."""
    decoded = decoded_or_text(body) if isinstance(body, (bytes, bytearray, memoryview)) else body
    fault = _read(decoded, status)
    kind = _kind(fault, status)
    details: dict[str, Any] = {
        "status": status,
        "type": fault.type,
        "code": fault.code,
        "param": fault.param,
        "body": decoded,
        "hint": _hint(fault) or _redirect_hint(status, headers or {}),
        "retry_after": retry_after_seconds(headers or {}),
    }
    if kind is ModelNotFoundError:
        details["available"] = _available(fault.message)
    if kind is ContextLengthError:
        details["prompt_tokens"], details["context_length"] = _token_counts(fault.message)
    where = f"{path}: " if path else ""
    return kind(f"{where}{_sentence(_with_param(fault))}", **details)


def refusal_in(decoded: object) -> bool:
    """Tell whether a decoded body or event is an error though its status says 200."""
    if not isinstance(decoded, Mapping):
        return False
    if decoded.get("choices"):
        return False
    return bool(decoded.get("error")) or "error" in (decoded.get("type"), decoded.get("object"))


def retry_after_seconds(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Read `Retry-After` (RFC 9110, section 10.2.3: seconds or a date) or `retry-after-ms`; None where there is neither.

    A date is counted from the response's own `Date`, or from `now` (seconds since 1970), since clocks differ.
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
    import email.utils  # here, because dates are rare and the package is large

    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def decoded_or_text(body: bytes | bytearray | memoryview) -> object:
    """Decode a body, in which UTF-8 may be broken; what is no JSON is given as text."""
    text = bytes(body).decode("utf-8-sig", "replace")
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text[:TEXT_CHARS].strip()


def _read(decoded: object, status: int) -> Fault:
    """Find message, type, code and param, at most a few levels deep."""
    error = decoded
    found: dict[str, str | None] = {"type": None, "code": None, "param": None}
    for _ in range(NESTING_LIMIT):
        if not isinstance(error, Mapping):
            break
        for name in found:
            value = error.get(name)
            if value is not None and not (name == "type" and value == "error"):
                found[name] = str(value)
        nested = error.get("error")
        error = nested or _own_words(error)
    return Fault(message=_message(error, status), **found)


def _own_words(error: Mapping[str, Any]) -> object:
    """Give an error object's message: `message`, or `title` with `cause`, or FastAPI's `detail`."""
    if error.get("title"):
        return ": ".join(str(error[name]) for name in ("title", "cause") if error.get(name))
    return error.get("message") or error.get("detail") or dict(error) or None


def _message(error: object, status: int) -> str:
    issues = error if isinstance(error, list) else _issues_in(error)
    if issues:
        return "; ".join(_issue(issue) for issue in issues[:8])
    if error is None or error == "":
        return f"the server answered {status} without a word"
    if isinstance(error, str) and _looks_like_html(error):
        return f"the server answered {status} with a web page, not JSON: {describe(_without_tags(error))}"
    return error[:TEXT_CHARS] if isinstance(error, str) else describe(str(error), TEXT_CHARS)


def _issues_in(error: object) -> list[Any]:
    """Read a JSON array inside a string: LM Studio's schema validation puts its issues there."""
    if not isinstance(error, str) or not error.lstrip().startswith("["):
        return []
    try:
        issues = msgspec.json.decode(error)
    except (msgspec.DecodeError, RecursionError):
        return []
    return issues if isinstance(issues, list) else []


def _issue(issue: object) -> str:
    if not isinstance(issue, Mapping):
        return describe(str(issue))
    path = issue.get("path", issue.get("loc"))  # Zod's name and pydantic's
    where = ".".join(str(step) for step in path) if isinstance(path, list) else ""
    text = str(issue.get("message") or issue.get("msg") or issue.get("code") or describe(str(dict(issue))))
    received = f" (received {issue['received']})" if issue.get("received") else ""
    return f"{where}: {text}{received}" if where else text + received


def _looks_like_html(text: str) -> bool:
    return re.match(r"\s*<(!doctype|html|head|body)\b", text, re.IGNORECASE) is not None


def _without_tags(text: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>|<[^>]{0,500}>", " ", text, flags=re.IGNORECASE | re.DOTALL)


def _kind(fault: Fault, status: int) -> type[APIError]:
    if fault.type in TYPES:  # a plugin or MCP server that is set up wrongly is refused, one that fails is not
        return InvalidRequestError if 400 <= status < 500 else TYPES[fault.type][0]
    for phrase, kind in PHRASES:
        if phrase.search(fault.message):
            return kind
    for word in (fault.code, fault.type):
        if word in CODES:
            return CODES[word]
    if status < 400 and (fault.code or "").isdecimal():
        status = int(str(fault.code)[:3])  # an error inside a good status may carry the one it would have had
    if status in STATUSES:
        return STATUSES[status]
    if status >= 500:
        return ServerError
    if status >= 400 or fault.type in {"invalid_request", "invalid_request_error"}:
        return InvalidRequestError
    return APIError


def _hint(fault: Fault) -> str | None:
    """Give a better hint than the class has, where the words tell more."""
    if fault.type in TYPES:
        return TYPES[fault.type][1]
    for phrase, hint in HINTS:
        if phrase.search(fault.message):
            return hint
    return None


def _redirect_hint(status: int, headers: Mapping[str, str]) -> str | None:
    """Say where a redirect leads: it is not followed, since the token and the prompt are for this server alone."""
    if not 300 <= status < 400:
        return None
    return f"The server redirects to {redact_url(headers.get('location', 'nowhere'))[:200]}: set `base_url` to that server."


def _available(message: str) -> list[str]:
    """Read the ids that LM Studio lists below "Your models:" when it does not know a name."""
    _, mark, listed = message.partition("Your models:")
    return [line.strip() for line in listed.splitlines() if line.strip()] if mark else []


def _with_param(fault: Fault) -> str:
    """Name the field in a message that says no more than "Required"."""
    if not fault.param or len(fault.message) > BARE_MESSAGE or fault.param in fault.message:
        return fault.message
    return f"{fault.param}: {fault.message}"


def _token_counts(message: str) -> tuple[int | None, int | None]:
    """Read how long the prompt is and how much the model holds, in tokens."""
    found = next((match for counts in TOKEN_COUNTS if (match := counts.search(message))), None)
    return (int(found["prompt"]), int(found["limit"])) if found else (None, None)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
