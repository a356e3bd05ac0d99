"""The contents of error bodies: message, type, code and field, in all notations.

LM Studio reports an error as a bare string, an object, a JSON array inside a string, in Anthropic's format, or as JSON after a
sentence (lmstudio-bug-tracker #2182, #2257). Proxies quote the error of their server in a sentence of their own, as JSON, as a
Python dictionary (`str()` of an exception of the `openai` package) or as a web page, and a lost connection cuts any of them.
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
from lmdeck._responses.error_codes import STATUS_NAMES
from lmdeck._responses.json_bodies import TEXT_CHARS, without_tags
from lmdeck._responses.own_words import own_words
from lmdeck.errors import describe

__all__ = ["RETURNED", "ErrorInfo", "read_error"]

NESTING_LIMIT = 8
# The names of fields, lower-case and without underscores, as `_fields` returns them.
INNER_FIELDS = ("error", "err", "fault", "exception")
TITLE_FIELDS = ("title", "message", "msg", "errormessage", "errormsg", "faultstring")
DETAIL_FIELDS = ("detail", "errordescription", "description", "reason")
MESSAGE_FIELDS = (*TITLE_FIELDS, *DETAIL_FIELDS)
CAUSE_FIELDS = ("cause", "metadata", "raw", "innererror")  # OpenRouter has its provider's answer in `metadata.raw`
QUOTED_FIELDS = (*INNER_FIELDS, "errors", *TITLE_FIELDS, "detail", *CAUSE_FIELDS)  # a tool has a `description` too
TYPE_FIELDS = ("type", "errortype")
CODE_FIELDS = ("code", "errorcode")
NO_VALUES = (None, "None", "null")  # LiteLLM writes the text of Python's None
STATUS_FIELDS = ("statuscode", "status", "httpstatus")
PROMPT_FIELDS = ("nprompttokens", "prompttokens", "numprompttokens", "inputtokens")
CONTEXT_FIELDS = ("nctx", "contextlength", "maxcontextlength", "contextsize", "maxmodellen")
RETURNED = late_pattern(
    r"\b(?:returned|(?:status|error)(?: code)?:?) ([45]\d\d)\b"
    r"|\b([45]\d\d) (?:bad gateway|service (?:temporarily )?unavailable|gateway time-?out|internal server error)\b",
    re.IGNORECASE,
)
_DECODER = json.JSONDecoder()
_OPENERS = late_pattern(r"[\[{]")
_CLOSERS = late_pattern(r"[\]}]")
_EXCEPTIONS = late_pattern(r"\b([A-Z]\w{0,60}?)(?:Error|Exception)\b(?! -)")  # LiteLLM's provider has the dash
_EVENT_FIELDS = late_pattern(r"^(?:event: ?\w*|data:)\s*", re.MULTILINE)  # a server-sent event as a body
_DOCUMENT = late_pattern(r"<(?:!doctype html|html)\b", re.IGNORECASE)
_PAGE = late_pattern(r"<(?:\?xml|!--|(?:!doctype|html|head|body|title|center|h1)\b)", re.IGNORECASE)
_OF_REQUEST = late_pattern(r"\b(?:received|got|value|input|part|result|arguments)\W*$", re.IGNORECASE)
_CUT_MESSAGE = late_pattern(r'"(?:error|message|detail|msg|title|reason)"\s*:\s*"((?:[^"\\]|\\.)*)("?)')


class ErrorInfo(Struct, frozen=True, kw_only=True):
    """The contents of an error body."""

    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None
    prompt_tokens: int | None = None
    context_length: int | None = None
    is_page: bool = False  # whether the body is a web page, or quotes one
    is_bare: bool = False  # whether the body is not JSON

    @property
    def page_status(self) -> int | None:
        """The HTTP status that a quoted web page names, or None."""
        returned = RETURNED.search(self.message) if self.is_page else None
        return int(returned[1] or returned[2]) if returned else None

    @property
    def status(self) -> int | None:
        """The HTTP status named by code, type or message, or None."""
        if self.code and re.fullmatch(r"[45]\d\d", self.code):
            return int(self.code)
        for word in (self.code, self.type):
            if word and (named := _status_of_name(word)):
                return named
        words = own_words(self.message)
        if returned := RETURNED.search(words):
            return int(returned[1] or returned[2])
        exceptions = (_status_of_name(found[1]) for found in _EXCEPTIONS.finditer(words))
        return next((status for status in exceptions if status), None)


def read_error(decoded: object, status: int) -> ErrorInfo:
    """Return the contents of a nested error.

    The innermost values describe the cause.
    """
    error = decoded
    sentences: list[str] = []
    found: dict[str, Any] = {"type": None, "code": None, "param": None}
    prompt_tokens = context_length = None
    for _ in range(NESTING_LIMIT):
        if isinstance(error, str) and (quoted := _embedded(error)):
            sentence, error = quoted
            sentences += [sentence] if sentence else []
        if isinstance(error, list) and len(error) == 1 and not _has_path(error[0]):
            error = error[0]  # JSON:API
        if not isinstance(error, Mapping):
            break
        fields = _fields(error)
        _read_names(fields, found)
        prompt_tokens = _number(fields, PROMPT_FIELDS) or prompt_tokens
        context_length = _number(fields, CONTEXT_FIELDS) or context_length
        error = _message_of(fields) or _without_message(fields, error)
    is_page = isinstance(error, str) and _page_start(error) is not None
    return ErrorInfo(
        message=": ".join([*sentences, _message(error, status)]),
        is_page=is_page,
        is_bare=isinstance(decoded, str),
        prompt_tokens=prompt_tokens,
        context_length=context_length,
        **found,
    )


def _fields(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an error object, named in small letters, without underscores."""
    return {str(name).replace("_", "").lower(): value for name, value in error.items()}


def _first_of(error: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((error[name] for name in names if error.get(name)), None)


def _read_names(error: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Set type, code and field to those of an error object, as far as it has them."""
    named = {"type": _first_of(error, TYPE_FIELDS), "code": _first_of(error, CODE_FIELDS), "param": error.get("param")}
    for name, value in named.items():
        if value not in NO_VALUES and not (name == "type" and value == "error"):
            found[name] = str(value)
    found["code"] = found["code"] or _status_of(error)


def _number(error: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if type(value := error.get(name)) is int and value > 0), None)


def _status_of(error: Mapping[str, Any]) -> str | None:
    """Return the HTTP status in an error object, as a number or by its name."""
    statuses = [error.get(name) for name in STATUS_FIELDS]
    number = next((str(status) for status in statuses if isinstance(status, int) and 400 <= status < 600), None)
    return number or next((str(name) for name in statuses if isinstance(name, str) and _status_of_name(name)), None)


def _status_of_name(name: str) -> int | None:
    """Return the HTTP status of an error's name, such as `UNAVAILABLE`, or None."""
    letters = re.sub(r"[^a-z]", "", name.lower())
    return STATUS_NAMES.get(letters.removesuffix("error").removesuffix("exception"))


def _embedded(text: str) -> tuple[str, object] | None:
    """Return a sentence and the error or issues quoted after it, or None."""
    for opener in itertools.islice(_OPENERS.finditer(text), NESTING_LIMIT):
        start = opener.start()
        if _OF_REQUEST.search(text[:start]):
            return None  # a validation message quotes what it was sent
        value = _literal(text, start)
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Mapping) and _first_of(_fields(first), QUOTED_FIELDS):
            return _EVENT_FIELDS.sub("", text[:start]).rstrip(" :-\n"), value
    return _cut_object(text)


def _literal(text: str, start: int) -> object:
    """Return the JSON or Python value at a position, or None."""
    try:
        return _DECODER.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        pass
    if not text.startswith(("{'", "[{'"), start):
        return None
    import ast  # imported late: such errors are rare

    for closer in itertools.islice(_CLOSERS.finditer(text, start, start + TEXT_CHARS), NESTING_LIMIT):
        try:
            return ast.literal_eval(text[start : closer.end()])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _cut_object(text: str) -> tuple[str, object] | None:
    """Return the innermost message of a JSON object whose end is missing, or None."""
    if not text.lstrip().startswith('{"'):
        return None
    messages = [found for found in _CUT_MESSAGE.finditer(text[:TEXT_CHARS]) if found[1]]
    if not messages:
        return None
    found = messages[-1]
    try:
        words = json.loads(f'"{found[1]}"', strict=False)
    except ValueError:
        words = found[1]
    return "", words if found[2] else f"{words}…"


def _message_of(error: Mapping[str, Any]) -> object:
    """Return the inner error of an error object, or its message with its details.

    Servers name the message differently: LM Studio `title`, FastAPI `detail`, others `msg`, `reason` or a list of `errors`;
    NestJS and Spring have the name of the status in `error`, and the message beside it.
    """
    inner = _first_of(error, INNER_FIELDS) or _issues(error.get("errors"))
    message, cause = _own_message(error), _first_of(error, CAUSE_FIELDS)
    if message and not isinstance(inner, (str, Mapping, list)):
        inner = None  # a flag, or a number
    if inner and not (isinstance(inner, str) and isinstance(message, str) and message not in inner):
        return inner
    parts = [each for each in (inner, message, cause) if each]
    if len(parts) < 2:
        return parts[0] if parts else None
    return ": ".join(each if isinstance(each, str) else _text_of(each) for each in parts)


def _own_message(error: Mapping[str, Any]) -> object:
    """Return the message of an error object itself, with its details."""
    title, detail = _first_of(error, TITLE_FIELDS), _first_of(error, DETAIL_FIELDS)
    if detail is error.get("reason") and title:
        detail = None  # a name of the error, such as Kubernetes' `NotFound`
    return f"{title}: {detail}" if isinstance(title, str) and isinstance(detail, str) else title or detail


def _without_message(fields: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """Return an error object as text, but empty if its message is empty."""
    empty = any(fields.get(name, ...) in ("", None) for name in (*INNER_FIELDS, *MESSAGE_FIELDS))
    return "" if empty or not error else str(dict(error))


def _issues(errors: object) -> object:
    """Return `errors` as a list of issues; ASP.NET writes a mapping of fields to their issues."""
    if not isinstance(errors, Mapping):
        return errors
    return [{"path": [field], "message": words} for field, lines in errors.items() for words in _as_list(lines)]


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _text_of(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _message(error: object, status: int) -> str:
    if isinstance(error, list) and error:
        return "; ".join(_issue(issue) for issue in error[:8])
    if error is None or error == "":
        return f"the server answered {status} without a message"
    if not isinstance(error, str):
        return describe(str(error), TEXT_CHARS)
    start = _page_start(error)
    if start is None:
        return error[:TEXT_CHARS]
    sentence = error[:start].rstrip(" :-\n")
    page = f"the server answered {status} with a web page, not JSON: {describe(without_tags(error[start:]))}"
    return f"{sentence}: {page}" if sentence else page


def _has_path(issue: object) -> bool:
    """Whether an issue names the field that it is about, as those of Zod and pydantic do."""
    return isinstance(issue, Mapping) and not {"path", "loc"}.isdisjoint(issue)


def _issue(issue: object) -> str:
    if not isinstance(issue, Mapping):
        return describe(str(issue))
    path = issue.get("path", issue.get("loc"))  # the names of Zod and pydantic
    where = ".".join(str(step) for step in path) if isinstance(path, (list, tuple)) else ""
    text = str(_own_message(_fields(issue)) or issue.get("code") or describe(str(dict(issue))))
    received = f" (received {issue['received']})" if issue.get("received") else ""
    return f"{where}: {text}{received}" if where else text + received


def _page_start(text: str) -> int | None:
    """Return where a web page starts, or None; only a whole document may follow a sentence."""
    found = _PAGE.match(text.lstrip()) or _DOCUMENT.search(text[:TEXT_CHARS])
    start = None if found is None else text.index(found[0])
    return None if start and _OF_REQUEST.search(text[:start]) else start
