"""Write the table of dialects into `docs/dialects.md`: `python scripts/dialect_table.py`, or with `--check` only compare."""

from __future__ import annotations

import sys
from pathlib import Path

from lmdeck._parsing.dialects import REGISTRY
from lmdeck._parsing.dialects.dialect import Dialect

PAGE = Path(__file__).parents[1] / "docs" / "dialects.md"
MOST = 14
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def code(text: str) -> str:
    return "`" + text.replace("\n", "\\n").replace("|", "\\|") + "`"


def row(dialect: Dialect) -> str:
    begins = [marker.text for marker in dialect.markers]
    if dialect.pythonic:
        begins.append("[NAME(")
    if dialect.bare:
        begins.append("bare JSON")
    tags = [f"{tag.open}…{tag.close}" for tag in dialect.reasoning]
    others = f" and {len(begins) - MOST} more spellings" if len(begins) > MOST else ""
    shown = [dialect.name, dialect.models, " ".join(map(code, begins[:MOST])) + others, " ".join(map(code, tags))]
    return "| " + " | ".join([*shown, code(dialect.example or dialect.shown)]) + " |\n"


def table() -> str:
    head = "| dialect | models | begins a call | reasoning | example |\n|---|---|---|---|---|\n"
    return head + "".join(row(dialect) for _, dialect in sorted(REGISTRY.items()))


def page() -> str:
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN) + len(BEGIN)] + table() + text[text.index(END) :]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
