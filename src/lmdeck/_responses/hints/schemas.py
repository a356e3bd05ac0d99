"""Hints about schemas and grammars: of tools, and of `response_format`."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_expressions import GRAMMAR_ERRORS, SCHEMA_REFUSED

LIST_OF_TYPES = (
    AnyPattern(r"'type' must be a string"),
    "Write a list of types in a schema as anyOf, as the rule `schemas` does.",
)
RESPONSE_FORMAT = (AnyPattern(r"response_format"), "Use a json_schema: chat.parse(Type) creates one.")
TOO_COMPLEX = (
    AnyPattern(*GRAMMAR_ERRORS, *SCHEMA_REFUSED),
    "The schema of a tool or of response_format is too complex for the engine: simplify it (no pattern, no deep nesting).",
)
OTHER = (
    AnyPattern(r"\b(json[ _]?)?schemas?\b", r"\bgrammars?\b", r"\bresponse_format\b", r"\bstructured output"),
    "Correct or simplify the schema of response_format or of the tools; not every server takes both in one request.",
)
