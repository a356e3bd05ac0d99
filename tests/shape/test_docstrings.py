"""Docstrings begin with one short sentence."""

from __future__ import annotations

import ast
from pathlib import Path

import lmdeck

LONGEST = 90
SOURCES = sorted(Path(lmdeck.__file__).parent.rglob("*.py"))


def test_the_first_line_of_a_docstring_is_short() -> None:
    too_long = [
        f"{path.name}:{getattr(node, 'lineno', 1)}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module))
        and len((ast.get_docstring(node) or "").partition("\n")[0]) > LONGEST
    ]
    assert len(SOURCES) > 300
    assert too_long == []
