"""Decode a body or an event, and check whether it is an error; `api_errors` reads the error."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping

import msgspec

from lmdeck._late_patterns import late_pattern
from lmdeck.errors import describe

TEXT_CHARS = 4000
_TAG = late_pattern(r"<(script|style)\b.*?</\1>|<[^>]{0,500}>", re.IGNORECASE | re.DOTALL)
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_error_body(decoded: object) -> bool:
    """Whether a decoded body or event is an error despite the status 200.

    OpenRouter reports an error during an answer in a chunk with the finish reason `error`.
    """
    if not isinstance(decoded, Mapping):
        return False
    choices = decoded.get("choices")
    if isinstance(choices, list) and choices:
        failed = any(isinstance(choice, Mapping) and choice.get("finish_reason") == "error" for choice in choices)
        return failed and bool(decoded.get("error"))
    return bool(decoded.get("error")) or "error" in (decoded.get("type"), decoded.get("object"))


def decoded_or_text(body: bytes | bytearray | memoryview) -> object:
    """Return a body decoded from JSON, or as text if it is not JSON; invalid UTF-8 is replaced."""
    text = bytes(body).removeprefix(BOM_UTF8).decode("utf-8", "replace")
    try:
        return msgspec.json.decode(text)
    except DECODE_ERRORS:
        return text[:TEXT_CHARS].strip()


def describe_body(body: bytes) -> str:
    """Return the beginning of a body as one printable line, a web page without its tags."""
    text = body[:TEXT_CHARS].decode("utf-8", "replace").lstrip()
    words = without_tags(text).strip() if text.startswith("<") else ""
    return describe(words or text[:400])


def without_tags(page: str) -> str:
    """Return the text of a web page."""
    return _TAG.sub(" ", page)
