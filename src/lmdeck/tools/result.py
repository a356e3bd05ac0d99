"""What a handler gave, as the text of a tool message."""

from __future__ import annotations

import base64

import msgspec

__all__ = ["result_text"]

LIMIT = 1 << 20


def result_text(result: object) -> str:
    """Write a handler's result for the model: text as it is, bytes as text or base64, all else as JSON.

    Raises:
        TypeError: It has no form in JSON.
    """
    text = _text(result)
    if len(text) <= LIMIT:
        return text
    return f"{text[:LIMIT]}\n[cut: the result has {len(text)} characters, of which {LIMIT} are shown]"


def _text(result: object) -> str:
    if isinstance(result, str):
        return result
    if isinstance(result, (bytes, bytearray, memoryview)):
        data = bytes(result)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return base64.b64encode(data).decode()
    try:
        return msgspec.json.encode(result, enc_hook=_plain).decode()
    except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
        raise TypeError(f"a {type(result).__name__} has no form in JSON: {error}") from error


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # pydantic's
    if callable(dump):
        return dump(mode="json")
    if hasattr(value, "__fspath__"):
        return str(value)
    if isinstance(value, (complex, Exception)):
        return str(value)
    if hasattr(value, "tolist"):  # arrays
        return value.tolist()
    raise NotImplementedError(f"nothing writes a {type(value).__name__} as JSON")
