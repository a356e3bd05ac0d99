"""Schemas as LM Studio's engines follow them."""

from __future__ import annotations

from typing import Any

import pytest

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.chat import ChatSpec, build_chat
from lmdeck._requests.schemas import plain_schema

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}}
RECURSIVE = {"$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
BOMB = {
    "$defs": {f"d{n}": {"properties": {str(k): {"$ref": f"#/$defs/d{n + 1}"} for k in range(8)}} for n in range(12)},
    "$ref": "#/$defs/d0",
}
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reference": (
        {"$defs": {"P": POINT}, "type": "object", "properties": {"p": {"$ref": "#/$defs/P", "description": "a point"}}},
        {"type": "object", "properties": {"p": {**POINT, "description": "a point"}}},
    ),
    "types": (
        {"properties": {"a": {"type": ["string", "null"], "minLength": 1, "description": "d"}}},
        {"properties": {"a": {"description": "d", "anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}}},
    ),
    "one-type": ({"properties": {"a": {"type": ["string"]}}}, {"properties": {"a": {"type": "string"}}}),
    "a-property-named-type": (
        {"properties": {"type": {"type": "string"}}},
        {"properties": {"type": {"type": "string"}}},
    ),
    "an-enum-is-data": ({"enum": [{"$ref": "#/x"}]}, {"enum": [{"$ref": "#/x"}]}),
    "recursive": (RECURSIVE, RECURSIVE),
    "unknown-reference": ({"$ref": "#/$defs/none"}, {"$ref": "#/$defs/none"}),
    "too-large": (BOMB, BOMB),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_written_out_or_left_as_it_is(name: str) -> None:
    """References and lists of types go; what cannot be written out stays, in bounded time."""
    given, expected = SCHEMAS[name]
    assert plain_schema(given) == expected


def test_tools_and_response_formats_are_sent_so_and_reported() -> None:
    """The caller's own schema is not changed."""
    schema = {"$defs": {"P": POINT}, "type": "object", "properties": {"p": {"$ref": "#/$defs/P"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    spec = ChatSpec(messages=({"role": "user", "content": "x"},), tools=(tool,), options={"response_format": form})
    fixes = CompatibilityFixes()
    body = build_chat(spec, "m", fixes, stream=False)
    assert body["tools"][0]["function"]["parameters"]["properties"]["p"] == POINT
    assert body["response_format"]["json_schema"]["schema"]["properties"]["p"] == POINT
    assert [problem.code for problem in fixes.problems] == ["adjusted", "adjusted"]
    assert "$defs" in schema
