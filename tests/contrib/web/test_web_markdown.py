"""The page's Markdown, run in Node: the same elements in one piece and growing, and in time that follows the text."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lmdeck.web.page import STATIC
from loopback import PATIENCE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None, reason="NO TESTS OF THE PAGE'S MARKDOWN: they need Node, apt-get install nodejs"
)
SCRIPT = Path(__file__).with_name("markdown_in_node.mjs")

SHOWN: list[tuple[str, Any]] = [
    ("plain", [{"name": "p", "childNodes": ["plain"]}]),
    ("a **b** *c* `d`", [("p", ["a ", ("strong", ["b"]), " ", ("em", ["c"]), " ", ("code", ["d"])])]),
    ("# H\n\n- a\n- b\n\n1. c", [("h3", ["H"]), ("ul", [("li", ["a"]), ("li", ["b"])]), ("ol", [("li", ["c"])])]),
    ("a\nb", [("p", ["a", ("br", []), "b"])]),
    ("```py\nx < 1\n```\nz", [("pre", [("code", ["x < 1"])]), ("p", ["z"])]),
    ("<img onerror=x>", [("p", ["<img onerror=x>"])]),
    ("[a](https://b.example/c?d=1)", [("p", [("a", ["a"], "https://b.example/c?d=1")])]),
    ("[a](javascript:alert(1)) [b](data:x)", [("p", ["[a](javascript:alert(1)) [b](data:x)"])]),
    ("[a](https://b c) [d](http://e)", [("p", ["[a](https://b c) ", ("a", ["d"], "http://e")])]),
    ("**a* `b [c ** ]( *", [("p", ["**a* `b [c ** ]( *"])]),
    ("``a`b`` * x*", [("p", ["``a", ("code", ["b"]), "` * x*"])]),
]  # fmt: skip

HOSTILE = [
    "[", "]", "`", "*", "**", "[a](", "[a](https://", "[[](https://b ", "[a](https://b [",
    "`a", "``a`", "*a", "**a*", "* ", "# ", "- ",
    "\n", "\n\n", " ", "1. ", "```\n", "``` x\n", "[a](https://b) ", "![", "(", "[](", "a] [", "`` ` ", "***", "_",
]  # fmt: skip


def run(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(SCRIPT), str(STATIC / "markdown.js")],
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    drawn: list[dict[str, Any]] = json.loads(done.stdout)
    return drawn


def tree(node: Any) -> Any:
    if not isinstance(node, tuple):
        return node
    name, children, *href = node
    made = {"name": name, "childNodes": [tree(child) for child in children]}
    return {"name": name, "href": href[0], "childNodes": made["childNodes"]} if href else made


@pytest.mark.parametrize("step", [None, 1, 3, 1000])
def test_it_is_drawn_as_elements(step: int | None) -> None:
    drawn = run([{"text": text, **({"step": step} if step else {})} for text, _ in SHOWN])
    for (text, expected), got in zip(SHOWN, drawn, strict=True):
        assert (text, got["drawn"]) == (text, [tree(node) for node in expected])


def test_no_text_takes_longer_than_its_length_asks_for() -> None:
    """What is eight times as long takes no more than some thirty times as long; a quadratic reader would take sixty-four."""
    small, large = 20_000, 160_000
    drawn = run([{"text": text, "repeat": size // len(text)} for text in HOSTILE for size in (small, large)])
    spent = [each["spent"] for each in drawn]
    for text, one, eight in zip(HOSTILE, spent[::2], spent[1::2], strict=True):
        assert eight < 32 * max(one, 20_000), (text, one, eight)  # microseconds; below 20 ms it is noise
