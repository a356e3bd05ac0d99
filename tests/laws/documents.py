# ruff: noqa: E501 - documents as they are
"""Ordinary documents: a few of our own, and those that installed packages bring: README, HTML, JSON, LaTeX, Markdown, code."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from laws.material import LITERALS, is_unmistakable

__all__ = ["OWN", "installed"]

SUFFIXES = (".md", ".rst", ".txt", ".html", ".htm", ".json", ".tex", ".sty", ".xml", ".svg", ".css", ".js", ".py", ".pyi", ".toml",
            ".csv", ".po", ".jinja", ".j2", ".h", ".c")  # fmt: skip
LARGEST = 48 * 1024
SPECIAL = [literal for literal in LITERALS if is_unmistakable(literal)]
OPENERS = ("<think>", "Here are my reasoning steps:", "Here is my thought process:", "Here's my thought process:")

OWN = {
    "grading": "The question was 6 * 7.\n<answer>42</answer>\n<response>Correct.</response>\nScore: <s>2</s> 3 of 3 </s>",
    "html": (
        '<!DOCTYPE html>\n<html lang="en">\n<head><title>A <s>page</s></title></head>\n<body>\n<p>Was <s>20</s>, now 15.</p>\n'
        "<co>company</co>\n<response>fine</response>\n<user>ann</user>\n<function>alert(1)</function>\n<ul>\n<li>one</li>\n"
        "<li>two</li>\n</ul>\n<text>t</text><count>3</count></body>\n</html>\n"
    ),
    "json": '{\n  "html": "<s>old</s> <answer>new</answer>",\n  "name": "save",\n  "list": [1, 2, {"think": "<think>no</think>"}]\n}',
    "openapi": '{"name": "save", "description": "Save a text", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}',
    "markdown": (
        "# Tools\n\nWrite `<tool_call>` in *backticks*.\n\n```python\ncalls = [save(text='x')]\n[save(text='x')]\n```\n\n"
        '~~~\n<tool_call>{"name": "ping", "arguments": {}}</tool_call>\n~~~\n\n'
        '    <tool_call>{"name": "ping", "arguments": {}}</tool_call>\n\n'
        '> <tool_call>{"name": "ping", "arguments": {}}</tool_call>\n\n'
        '| form | text |\n|---|---|\n| hermes | <tool_call>{"name": "ping", "arguments": {}}</tool_call> |\n| end | `</s>` |\n'
    ),
    "latex": "\\documentclass{article}\n\\begin{document}\n$\\{x \\in [0, 1) : f(x) < 3\\}$ and $[a, b](c)$.\n\\end{document}\n",
    "python": (
        "import functools\n\n\ndef look(place, days=1):\n    calls = [save(text='x'), look(place=\"Rome\")]\n    return functools.partial(save)\n\n"
        ">>> save(text='x')\n{'name': 'save', 'arguments': {'text': 'x'}}\n>>> ping\n"
    ),
    "prose": (
        "Here is my plan. Here is my thought process: tests first, code second. Here is my response: begin.\n"
        "The sentence [save(text='x')] is a list, and to=ann is an address.\nto=ann\nThe functools[0] entry; call: none.\n"
        "Action:\nopen the door.\nIn thinking, </think> ends what <think> began; [ARGS] and [THINK] are tokens' names.\n"
        'Well:\n\n{"name": "save", "arguments": {"text": "x"}}\n\nis how it is written.\n'
    ),
    "transcript": "User: hi\nAssistant: hello\n<user>\nname\n</user>\n</function>\n</tool_call>\n</parameter>\n</tool_calls>\nDone.\n",
    "lines": "\r\n\r\n  indented\r\n\ttabbed\x0b\x0c\u2028\u2029\u0085 end  \n\n\n",
    "diff": "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-<answer>\n+</answer>\n <response>\n",
    "special in code": "The tokens are `<|im_start|>`, `<|channel|>` and `[TOOL_CALLS]`:\n\n```\n<|channel|>final<|message|>Hi.<|end|>\n```\n",
}  # fmt: skip
"""Documents that hold what looks like markup of some dialect, and is not."""


def installed(count: int, step: int = 1) -> Iterator[tuple[str, str]]:
    """Return the names and texts of up to so many documents in installed packages, the same ones for the same packages.

    Those that hold special tokens of a model or begin with reasoning are left out.
    """
    root = Path(sysconfig.get_paths()["purelib"])
    paths = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES or path.name in ("METADATA", "LICENSE"))
    for path in paths[::step]:
        if count <= 0:
            return
        if not path.is_file() or not 200 < path.stat().st_size < 8 * LARGEST:
            continue
        try:
            text = path.read_text(encoding="utf-8")[:LARGEST]
        except UnicodeDecodeError:
            continue
        if not text.lstrip().startswith(OPENERS) and not any(token in text for token in SPECIAL):
            count -= 1
            yield str(path.relative_to(root)), text
