"""Hints about tools and the calls of a model."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern

REFUSED = (
    (
        AnyPattern(r"\bunsupported param\w*:? '?tools?\b"),
        "Start llama.cpp with `--jinja`, or update it: this server does not take tools. Or leave the tools out.",
    ),
    (
        AnyPattern(r"\bcannot use tools with stream"),
        "Use `send()` instead of `stream()`, or update the server: this version does not stream answers with tools.",
    ),
    (
        AnyPattern(
            r"expected 'function' \| 'mcp'",
            r"'type' of tool must be",
            r"\btools[.\[]\d+\]?[.]type\b",
            r"unsupported tool type",
        ),
        "Use only tools of the types function and mcp: the server does not support others.",
    ),
)
UNTRAINED = (
    AnyPattern(
        r"not support (tool use|tools|function calling)",
        r"tool (use|calling) is not supported",
        r"\bno (support for tools?|tool support)\b|\buse tools with (this|the) model",
    ),
    "Use a model trained for tools, or omit the tools.",
)
CHOICE = (
    AnyPattern(r"tool_choice"),
    "Use none, auto or required: with_tool_choice converts a tool's name into what LM Studio accepts.",
)
NO_PARAMETERS = (
    AnyPattern(r"invalid discriminator value. expected 'object'"),
    'Every tool needs `"parameters": {"type": "object", "properties": {…}}`.',
)
ARGUMENTS = (
    AnyPattern(r"\barguments\b.{0,80}\bjson\b", r"\bjson\b.{0,80}\barguments\b", r"\bcall arguments\b"),
    "Correct the call in the history whose `arguments` are not a JSON object, or leave out that turn.",
)
OTHER = (
    AnyPattern(r"\b(tools?|tool_calls?|functions?)\b"),
    "Correct the tool that the message names, or leave the tools out if the server or the model does not support them.",
)
