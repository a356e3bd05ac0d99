"""Compare docs/endpoints.md with a checkout of LM Studio's documentation, and list what the table does not mention.

    python scripts/endpoint_table.py PATH_TO_DOCS/1_developer

An endpoint is a `METHOD /path` of a page; its parameters are the names in the `lms_params` block of its request, those of
nested objects too, or the lines of the code block under “Supported payload parameters”. The exit code is 1 if anything is
missing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TABLE = Path(__file__).parents[1] / "docs" / "endpoints.md"
ENDPOINT = re.compile(r"`?\b(GET|POST)\s+(/(?:api/)?v[01]/[\w/:{}.-]+)`?")
COMPATIBLE = re.compile(r"^- Endpoint: `(/v1/\S+)`", re.MULTILINE)
BLOCK = re.compile(r"```lms_params\n(.*?)```", re.DOTALL)
NAME = re.compile(r"^(\s*)- name: ([a-z_]+)\s*$", re.MULTILINE)
PAYLOAD = re.compile(r"Supported payload parameters.*?```\w*\n(.*?)```", re.DOTALL)
PATH_PARAMETER = re.compile(r"\{\w+\}|:\w+")


def documented(page: str) -> Iterator[str]:
    """Return the endpoints and request parameters of one page."""
    for method, path in ENDPOINT.findall(page):
        yield f"{method} {path}"
    for path in COMPATIBLE.findall(page):
        yield f"POST {path}"
    _, _, request = page.partition("Request body")
    for block in BLOCK.findall(request.split("Response fields")[0]):
        yield from (name for _, name in NAME.findall(block))
    for block in PAYLOAD.findall(page):
        yield from block.split()


def missing(table: str, page: str) -> list[str]:
    """Return what a page documents and the table does not mention."""
    known = _plain(table)
    return sorted({each for each in documented(page) if not _is_mentioned(_plain(each), known)})


def _plain(text: str) -> str:
    return PATH_PARAMETER.sub("*", text)


def _is_mentioned(each: str, table: str) -> bool:
    """Whether the table has an endpoint, by its path, or a parameter, as a word in code."""
    if "/" in each:
        return re.search(re.escape(each.split()[-1].rstrip("/")) + r"(?![\w/])", table) is not None
    return re.search(rf"`[^`\n]*\b{re.escape(each)}\b[^`\n]*`", table) is not None


def main(folder: str) -> int:
    """Print what is missing, page by page."""
    table = TABLE.read_text(encoding="utf-8")
    found = False
    for path in sorted(Path(folder).rglob("*.md*")):
        if path.name.startswith("_") or any(part.startswith("_") for part in path.relative_to(folder).parts):
            continue
        for each in missing(table, path.read_text(encoding="utf-8")):
            found = True
            print(f"{path.relative_to(folder)}: {each}")
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
