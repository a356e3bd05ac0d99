"""What a docstring says of a function and its parameters, in Google's, NumPy's or Sphinx's style.

docstring-parser reads all three; it is imported only where a function has a docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable


def parse_docstring(function: Callable[..., object]) -> tuple[str, dict[str, str]]:
    """Give what a function does, and what each of its parameters means, on one line each."""
    text = inspect.getdoc(function)
    if not text:
        return "", {}
    from docstring_parser import parse  # here, because a script without tools needs it not

    found = parse(text)
    parts = (found.short_description, found.long_description)
    meanings = {param.arg_name.lstrip("*"): _line(param.description) for param in found.params if param.description}
    return " ".join(_line(part) for part in parts if part), meanings


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
