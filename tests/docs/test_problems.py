"""The page of problems lists every code that the library reports, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORTERS = frozenset({"Problem", "report", "_note_once"})
CODES_OF_A_VARIABLE = frozenset({"context_summarised", "context_trimmed", "tool_call_incomplete", "tool_call_unparsed"})


def _codes() -> Iterator[str]:
    for path in (ROOT / "src" / "lmdeck").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            code = node.args[0]
            if name in REPORTERS and isinstance(code, ast.Constant) and isinstance(code.value, str):
                yield code.value


def test_the_page_lists_every_code() -> None:
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted({*_codes(), *CODES_OF_A_VARIABLE})
