"""The site's map is complete: every page is in it, and every name of the reference exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import lmdeck

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
DOCS = ROOT / "docs"


def test_every_page_is_on_the_map_and_every_place_of_the_map_is_a_page() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", MAP, re.MULTILINE)) == pages


def test_every_name_of_the_reference_exists() -> None:
    names = [
        name
        for page in (DOCS / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]
    assert len(names) > 40
    for name in names:
        assert _found(name) is not None


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_error_is_explained() -> None:
    explained = (DOCS / "errors.md").read_text(encoding="utf-8")
    errors = [name for name in lmdeck.__all__ if name.endswith("Error")]
    bases = {"LMStudioError", "TransportError", "APIError", "StreamError", "ToolError"}
    assert [name for name in errors if name not in bases and f"`{name}`" not in explained] == []


def test_the_table_of_settings_is_that_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| `") and "| `LMDECK_" in line]
    settings = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert len(rows) > 8
    for row in rows:
        assert row.replace("](docs/", "](") in settings


def _found(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(module), last)
