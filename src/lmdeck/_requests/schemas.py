"""JSON schemas in the form that LM Studio's engines support.

They have no references, and `anyOf` instead of lists of types. Both are reported in lmstudio-bug-tracker: `$ref` in a tool's
parameters is ignored, so that nested arguments come back flattened; `"type": ["string", "null"]` crashes the MLX engine in the
middle of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

MAX_NODES = 20_000
CACHE_SIZE, MAX_CACHED_BYTES = 512, 16 << 10
_DEFINITIONS = ("$defs", "definitions")


class _TooMuchError(Exception):
    """The schema is recursive or would become too large, so it is left unchanged."""


def plain_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with references inlined and lists of types as `anyOf`.

    If nothing changes, it is `schema` itself.

    The result is cached, because a client sends the same tools with each request: do not modify it.
    """
    try:
        written = msgspec.json.encode(schema)
        plain = _plain(written) if len(written) <= MAX_CACHED_BYTES else _plain.__wrapped__(written)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return schema  # the error is reported when the request is encoded
    return schema if plain is None else plain


@lru_cache(maxsize=CACHE_SIZE)
def _plain(written: bytes) -> dict[str, Any] | None:
    """Return the plain form of a schema; None if it is already plain, recursive or too large."""
    schema = msgspec.json.decode(written)
    try:
        plain = _Inliner(schema).inline(schema, ())
    except _TooMuchError:
        return None
    plain = {name: value for name, value in plain.items() if name not in _DEFINITIONS}
    is_changed = plain != {name: value for name, value in schema.items() if name not in _DEFINITIONS}
    return plain if is_changed else None


class _Inliner:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._nodes = 0

    def inline(self, schema: Mapping[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            if reference in within:
                raise _TooMuchError
            target = self._find(reference)
            if target is not None:
                beside = {name: value for name, value in schema.items() if name != "$ref"}
                return self.inline({**target, **beside}, (*within, reference))
        written = {name: self._value(name, value, within) for name, value in schema.items()}
        types = written.get("type")
        if isinstance(types, list) and types and "anyOf" not in written:
            del written["type"]
            if len(types) == 1:
                return {"type": types[0], **written}
            described: dict[str, Any] = {
                name: written.pop(name) for name in ("title", "description", "default") if name in written
            }
            return {
                **described,
                "anyOf": [{"type": "null"} if each == "null" else {"type": each, **written} for each in types],
            }
        return written

    def _value(self, name: str, value: Any, within: tuple[str, ...]) -> Any:  # JSON
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooMuchError
        if name in _DEFINITIONS or name in {"enum", "const", "default", "examples", "required"}:
            return value
        if name in {"properties", "patternProperties"} and isinstance(value, Mapping):
            return {
                key: self.inline(each, within) if isinstance(each, Mapping) else each for key, each in value.items()
            }
        if isinstance(value, Mapping):
            return self.inline(value, within)
        if isinstance(value, list):
            return [self.inline(each, within) if isinstance(each, Mapping) else each for each in value]
        return value

    def _find(self, reference: str) -> Mapping[str, Any] | None:
        found: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else None
