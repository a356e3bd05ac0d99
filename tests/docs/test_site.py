"""The site's map is complete: every page is in it, and every name of the reference exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import lmdeck
from lmdeck.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
DOCS = ROOT / "docs"


def test_every_page_is_on_the_map_and_every_place_of_the_map_is_a_page() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert set(re.findall(r": (\S+\.md)$", MAP, re.MULTILINE)) == pages


def test_the_reference_has_every_public_name_and_no_other() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    listed = {name: _found(name) for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}
    of_modules = {name for module in listed.values() if isinstance(module, ModuleType) for name in module.__all__}
    assert {name for name in lmdeck.__all__ if f"lmdeck.{name}" not in listed} - of_modules == {"__version__", "models"}


def test_no_two_pages_of_the_map_have_the_same_label() -> None:
    """A guide and the reference of the same module can be told apart."""
    labels = re.findall(r'^ +- "?([^"\n]+?)"?: \S+\.md$', MAP, re.MULTILINE)
    assert sorted(label.lower() for label in labels) == sorted({label.lower() for label in labels})


def test_links_lead_to_pages_and_headings() -> None:
    """Every link of the documentation and the README leads to a page, and to a heading if it names one."""
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", _prose(page)):
            if target.startswith(("http", "mailto:")):
                continue
            linked = (page.parent / target) if target else page
            assert linked.exists(), f"{page.name}: {target}"
            assert page.is_relative_to(DOCS) <= linked.resolve().is_relative_to(DOCS), (
                f"{page.name}: {target} leaves the site"
            )
            assert not anchor or anchor in _anchors(linked), f"{page.name}: {target}#{anchor}"


def _prose(page: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Python-Markdown's `toc` makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_command_is_on_the_page_of_the_command_line() -> None:
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if not re.search(rf"`(lmdeck )?{command.name}\b", page)] == []


def test_every_error_is_explained() -> None:
    explained = (DOCS / "errors.md").read_text(encoding="utf-8")
    errors = [name for name in lmdeck.__all__ if name.endswith("Error")]
    bases = {"LMStudioError", "TransportError", "APIError", "StreamError", "ToolError"}
    assert [name for name in errors if name not in bases and f"`{name}`" not in explained] == []


def _found(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(importlib.import_module(module), last)
