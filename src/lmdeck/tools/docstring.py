"""Descriptions of a function and its parameters from a docstring.

docstring-parser reads the styles of Google, NumPy and Sphinx; it is imported only for a function with a docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable


def parse_docstring(function: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """Return the description of a function, and those of its parameters, on one line each."""
    text = inspect.getdoc(function)
    if not text:
        return "", {}
    from docstring_parser import parse  # imported late: programs without tools do not need it

    found = parse(text)
    parts = (found.short_description, found.long_description)
    meanings = {param.arg_name.lstrip("*"): _line(param.description) for param in found.params if param.description}
    return " ".join(_line(part) for part in parts if part), meanings


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
