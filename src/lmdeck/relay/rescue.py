"""JSON that a model wrote into its reasoning although the answer was asked for in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lmdeck._parsing.structured_output import json_values
from lmdeck.messages import Reply
from lmdeck.tools.checker import Checker

__all__ = ["json_in_reasoning"]


def json_in_reasoning(reply: Reply, schema: Mapping[str, Any]) -> str | None:
    """Return the JSON text that should have been the answer; None where the answer has content, or nothing fits `schema`."""
    if reply.content or reply.tool_calls or not reply.reasoning:
        return None
    checker = Checker(schema, "The asked format")
    for value, _ in json_values(reply.reasoning):
        if isinstance(value, (dict, list)) and not checker.faults(value):
            return msgspec.json.encode(value).decode()
    return None
