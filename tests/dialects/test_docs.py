from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_table_of_dialects_is_current() -> None:
    """`python scripts/dialect_table.py` writes it."""
    writer = runpy.run_path(str(ROOT / "scripts" / "dialect_table.py"))
    assert (DOCS / "dialects.md").read_text(encoding="utf-8") == writer["page"]()


def test_the_page_runs() -> None:
    page = (DOCS / "dialects.md").read_text(encoding="utf-8")
    exec(page.split("```python\n")[1].split("```")[0], {})
