"""The registry of dialects.

A new dialect is declared in the file of its family, or in a new file that is listed here.
"""

from __future__ import annotations

from lmdeck._parsing.dialects import (
    call_sections,
    dsml,
    gemma,
    harmony,
    inkling,
    kimi_sections,
    minimax,
    mistral,
    pythonic,
    special_token_json,
    tool_call,
)
from lmdeck._parsing.dialects.dialect import Dialect
from lmdeck.errors import ConfigurationError

__all__ = ["REGISTRY", "dialect_named", "dialects", "find_dialect"]

FAMILIES = (
    tool_call,
    call_sections,
    mistral,
    special_token_json,
    dsml,
    gemma,
    minimax,
    pythonic,
    harmony,
    inkling,
    kimi_sections,
)
REGISTRY: dict[str, Dialect] = {dialect.name: dialect for family in FAMILIES for dialect in family.DIALECTS}


def dialects() -> dict[str, str]:
    """Return the names of all dialects with the models that speak them."""
    return {dialect.name: dialect.models for dialect in REGISTRY.values()}


def dialect_named(name: str) -> Dialect:
    """Return a dialect by its name.

    Raises:
        ConfigurationError: There is no dialect of that name.
    """
    if name not in REGISTRY:
        raise ConfigurationError(
            f"There is no dialect {name!r}.",
            hint='`lmdeck.dialects()` lists all dialects; "auto" recognises each of them.',
        )
    return REGISTRY[name]


def find_dialect(architecture: str) -> Dialect | None:
    """Return the dialect of a model architecture; None if it is unknown."""
    return next((dialect for dialect in REGISTRY.values() if architecture.lower() in dialect.architectures), None)
