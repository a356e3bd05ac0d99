"""Write the table of docs/endpoints.md from scripts/endpoints.toml, or compare that file with LM Studio's documentation.

    python scripts/endpoint_table.py                 # writes the table
    python scripts/endpoint_table.py --check         # exit code 1 if the page has another table
    python scripts/endpoint_table.py PATH_TO_DOCS/1_developer

The comparison lists the endpoints and request parameters of each page that the file does not have for that endpoint; the exit
code is 1 if there are any. An endpoint is a `METHOD /path` of a page, or its `Endpoint:` line; its parameters are the names in
the `lms_params` block of its request, nested ones too, or the lines of the block under “Supported payload parameters”.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DATA = HERE / "endpoints.toml"
PAGE = HERE.parent / "docs" / "endpoints.md"
BEGIN, END = "<!-- table: scripts/endpoint_table.py -->", "<!-- end of the table -->"
SUPPORT = ("yes", "as given", "no")
ENDPOINT = re.compile(r"`?\b(GET|POST)\s+(/(?:api/)?v[01]/[\w/:{}.-]+)`?")
COMPATIBLE = re.compile(r"^- Endpoint: `(/v1/\S+)`", re.MULTILINE)
BLOCK = re.compile(r"```lms_params\n(.*?)```", re.DOTALL)
NAME = re.compile(r"^\s*- name: ([a-z_]+)\s*$", re.MULTILINE)
PAYLOAD = re.compile(r"Supported payload parameters.*?```\w*\n(.*?)```", re.DOTALL)
PATH_PARAMETER = re.compile(r"\{\w+\}|:\w+")
Endpoint = Mapping[str, Any]


def read_endpoints() -> list[Endpoint]:
    """Return the endpoints of the data file, each entry checked.

    Raises:
        ValueError: An entry has no known support, or "no" without a reason.
    """
    endpoints: list[Endpoint] = tomllib.loads(DATA.read_text(encoding="utf-8"))["endpoint"]
    for endpoint in endpoints:
        for entry in (endpoint, *endpoint.get("parameters", ()), *endpoint.get("answers", ())):
            name = entry.get("path") or ", ".join(entry["names"])
            if entry["support"] not in SUPPORT:
                raise ValueError(f"{endpoint['path']}, {name}: `support` must be one of {SUPPORT}")
            if entry["support"] == "no" and not entry["how"]:
                raise ValueError(f'{endpoint["path"]}, {name}: `support` is "no": state the reason in `how`')
    return endpoints


# --- the table ---


def table(endpoints: list[Endpoint]) -> str:
    """Return the table in Markdown."""
    lines = ["| endpoint | parameter | supported | in lmdeck |", "|---|---|---|---|"]
    for endpoint in endpoints:
        lines.append(f"| `{endpoint['path']}` | | {endpoint['support']} | {endpoint['how']} |")
        for entry in (*endpoint.get("parameters", ()), *endpoint.get("answers", ())):
            names = ", ".join(f"`{name}`" for name in entry["names"])
            lines.append(f"| | {names} | {entry['support']} | {entry['how']} |")
    return "\n".join(lines)


def with_table(page: str, written: str) -> str:
    """Return the page with a table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"


# --- the comparison ---


def documented(page: str) -> tuple[list[str], list[str]]:
    """Return the endpoints and the request parameters of one page."""
    endpoints = [f"{method} {path.rstrip('/')}" for method, path in ENDPOINT.findall(page)]
    endpoints += [f"POST {path}" for path in COMPATIBLE.findall(page)]
    _, _, request = page.partition("Request body")
    blocks = BLOCK.findall(request.split("Response fields")[0])
    parameters = [name for block in blocks for name in NAME.findall(block)]
    parameters += [name for block in PAYLOAD.findall(page) for name in block.split()]
    return list(dict.fromkeys(endpoints)), list(dict.fromkeys(parameters))


def missing(endpoints: list[Endpoint], page: str, name: str) -> Iterator[str]:
    """Yield what a page documents and the data file does not have."""
    known = {_plain(endpoint["path"]): endpoint for endpoint in endpoints}
    paths, parameters = documented(page)
    yield from (path for path in paths if _plain(path) not in known)
    described = [endpoint for endpoint in endpoints if endpoint.get("page", "").split(".")[0] == name.split(".")[0]]
    described = described or [known[_plain(path)] for path in paths if _plain(path) in known]
    names = {each for endpoint in described for entry in endpoint.get("parameters", ()) for each in entry["names"]}
    yield from (parameter for parameter in parameters if parameter not in names)


def _plain(path: str) -> str:
    return PATH_PARAMETER.sub("*", path)


def compare(folder: Path) -> int:
    """Print what is missing, page by page."""
    endpoints = read_endpoints()
    found = False
    for path in sorted(folder.rglob("*.md*")):
        name = path.relative_to(folder)
        if any(part.startswith("_") for part in name.parts):
            continue
        for each in missing(endpoints, path.read_text(encoding="utf-8"), name.as_posix()):
            found = True
            print(f"{name.as_posix()}: {each}")
    return int(found)


def main(arguments: list[str]) -> int:
    """Write, check or compare."""
    if arguments and arguments[0] != "--check":
        return compare(Path(arguments[0]))
    page = PAGE.read_text(encoding="utf-8")
    written = with_table(page, table(read_endpoints()))
    if arguments:
        return int(written != page)
    PAGE.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
