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

from lmdeck.errors import (
    APIError,
    AuthenticationError,
    ContextLengthError,
    EndpointNotFoundError,
    InvalidRequestError,
    ModelCrashedError,
    ModelLoadError,
    ModelNotFoundError,
    NoModelLoadedError,
    RateLimitError,
    ServerError,
    TemplateError,
    describe,
)
from lmdeck.protocol.refused_tools import COMPILER_REFUSALS
from lmdeck.secret import redact_url

__all__ = ["api_error", "decoded_or_text", "refusal_in", "retry_after_seconds"]


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# The order matters: a crash caused by a full context names the context, a load that fails for memory names the model.
PHRASES: list[tuple[re.Pattern[str], type[APIError]]] = [
    (_words(r"unexpected endpoint or method"), EndpointNotFoundError),
    (
        _words(
            r"trying to keep the first \d+ tokens",
            r"number of tokens to keep from the initial prompt is greater",
            r"cannot truncate prompt with n_keep",
            r"input does not fit in context",
            r"context (size|length|window) (has been |was |is )?(exceeded|too small|overflow)",
            r"(exceeds?|exceeded|greater than|larger than|longer than|beyond)\b[^.\n]{0,60}\bcontext (size|length|window)",
            r"context[ _-]?length[ _-]?exceeded",
            r"maximum context length(?! must| should)",
            r"(model|context) length is only \d",  # vLLM
            r"context overflow(?!\W*policy)",
            r"overflows? the (model'?s )?context",
            r"exceeds? context limit",  # Anthropic
            r"(prompt|input)( \([^)\n]{0,40}\))? (is )?too long\b",  # Anthropic, vLLM
            r"longer than the maximum model length",
            r"(input|prompt|token)\b[^.\n]{0,40} exceeds? the maximum (allowed length|number of tokens)",  # SGLang, Gemini
            r"prompt (sequence )?length (\d+ )?is greater than",  # mistral.rs, exllamav2
            r"tokens`? \+ `?max_new_tokens`? must be <=",  # TGI
        ),
        ContextLengthError,
    ),
    (_words(r"no models? (is |are )?(currently )?loaded", r"model (\S+ )?(is )?not (currently )?loaded"), NoModelLoadedError),
    (_words(r"model is not embedding", r"does not support embeddings?", r"is not an embedding model"), InvalidRequestError),
    (
        _words(
            r"failed to load (the )?model",
            r"unable to load (the )?model",
            r"requires more system memory",  # Ollama
            r"\bout of memory",
            r"model loading aborted",
            r"insufficient system resources",
            r"error loading model",
            r"operation canceled",
            r"model load(ing)? (was |has been )?cancell?ed",
        ),
        ModelLoadError,
    ),
    (
        _words(
            r"model has crashed",
            r"model (process )?crashed",
            r"model (is|was|has been|got) unloaded",
            r"model unloaded",
            r"channel error",
            r"lost connection to (the )?(model|engine|worker)",
            r"runner process (has terminated|no longer running)",  # Ollama
            r"unexpectedly (exited|stopped|terminated|died)",
            r"(exited|stopped|terminated|died) unexpectedly",
            r"engine(core|deaderror)\b",  # vLLM
        ),
        ModelCrashedError,
    ),
    (_words(*COMPILER_REFUSALS), InvalidRequestError),
    (
        _words(
            r"jinja",
            r"unable to generate parser for this template",
            r"(prompt|chat) template",
            r"(?<!json )parser error: ",
            r"expected closing (statement|expression)",
            r"unknown (statement|filter|test) type",
            r"conversation roles must alternate",
            r"only (user|system)\b.{0,40} roles are supported",
            r"system role (is )?not supported",
            r"tool call ids should be alphanumeric",
            r"cannot apply filter",
            r"\bat row \d+, column \d+:",  # llama.cpp's minja
        ),
        TemplateError,
    ),
    (_words(r"invalid discriminator value"), InvalidRequestError),
    (_words(r"previous.?response\b.{0,120}(not found|unknown|expired|does not exist)", r"\bresp_\w+\W+(was )?not found",
            r"download job\b", r"\bjob\b.{0,60} not found"), InvalidRequestError),
    (_words(r"\bmodel( \S+)? not found", r"model_not_found", r"no such model",
            r"model .{0,200} (does not exist|was not found)"), ModelNotFoundError),
]  # fmt: skip
CODES: dict[str, type[APIError]] = {
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "model_not_found": ModelNotFoundError,
    "model_load_failed": ModelLoadError,
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "overloaded_error": ServerError,
    "api_error": ServerError,
    "server_error": ServerError,
    "internal_server_error": ServerError,
}
STATUSES: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: EndpointNotFoundError,
    405: EndpointNotFoundError,
    429: RateLimitError,
}
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
    where = f"{path}: " if path else ""
    return kind(f"{where}{_sentence(fault.message)}", **details)


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
    for phrase, hint in HINTS:
        if phrase.search(fault.message):
            return hint
    return None


def _redirect_hint(status: int, headers: Mapping[str, str]) -> str | None:
    """Say where a redirect leads: it is not followed, since the token and the prompt are for this server alone."""
    if not 300 <= status < 400:
        return None
    return f"The server redirects to {redact_url(headers.get('location', 'nowhere'))[:200]}: set `base_url` to that server."


HINTS: list[tuple[re.Pattern[str], str]] = [
    (_words(r"not embedding"), "Choose an embedding model: `lmdeck models` shows each model's type."),
    (_words(r"insufficient system resources"), str(ModelLoadError.default_hint)),
    (_words(*COMPILER_REFUSALS),
     "The schema of a tool or of response_format is too complex for the engine: simplify it (no pattern, no deep nesting)."),
    (_words(r"previous.?response", r"\bresp_\w+\W+(was )?not found"),
     "The server has forgotten that answer: begin a new conversation, or pass `recover=True` to have the history told again."),
    (_words(r"must be a base64 encoded image"), "Pass images as file, bytes or data URI; LM Studio fetches no web addresses."),
    (_words(r"invalid discriminator value. expected 'object'"),
     'Give every tool `"parameters": {"type": "object", "properties": {…}}`.'),
]  # fmt: skip


def _available(message: str) -> list[str]:
    """Read the ids that LM Studio lists below "Your models:" when it does not know a name."""
    _, mark, listed = message.partition("Your models:")
    return [line.strip() for line in listed.splitlines() if line.strip()] if mark else []


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
