"""What the laws are tried on: offered tools, the literals of every dialect, and random texts over them."""

from __future__ import annotations

import random
import re
from typing import Any

from lmdeck import dialects
from lmdeck._parsing.dialects import REGISTRY

Call = dict[str, Any]

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "save", "parameters": {"type": "object", "properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": "number"}, "on": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "array"}}}}}}},
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {
        "place": {"type": "string"}, "days": {"type": "integer"}}}}},
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
]  # fmt: skip
SAVE: Call = {"name": "save", "arguments": {"text": "hello there", "count": 3}}
LOOK: Call = {"name": "look", "arguments": {"place": "Rome", "days": 2}}
PING: Call = {"name": "ping", "arguments": {}}


def write(dialect: str, calls: list[Call]) -> str:
    """Return calls as a dialect writes them, whether they can be read back or not."""
    writes = REGISTRY[dialect].writes
    assert writes is not None
    return writes([(call["name"], call["arguments"]) for call in calls])


WRITERS = [dialect for dialect in dialects() if REGISTRY[dialect].writes is not None]
"""Dialects that have calls."""
EXAMPLES = {dialect: write(dialect, [SAVE, PING]) for dialect in WRITERS}
TAG = re.compile(
    r"<[^<>\s\"'](?:[^<>\n]{0,70}[^<>\n])?>|\[/?[A-Z_ ]{3,}\]|\]<\]minimax\[>\[|```\w*|>>>|call:|functools"
)
"""One structural token of a dialect, as its examples contain them."""

_DECLARED = (
    {
        marker.text
        for dialect in REGISTRY.values()
        for marker in (*dialect.markers, *dialect.only_if_known)
        if len(marker.text) > 1
    }
    | {text for dialect in REGISTRY.values() for tag in dialect.reasoning for text in (tag.open, tag.close)}
    | {drop for dialect in REGISTRY.values() for drop in dialect.drops}
)
LITERALS = sorted(_DECLARED | {token for text in EXAMPLES.values() for token in TAG.findall(text)})
"""Every text that means something to some dialect."""

SIZES = (90, 250, 256, 257, 300, 399, 400, 401, 420, 700, 4100)
"""Of runs in stretched texts."""


def is_unmistakable(literal: str) -> bool:
    """Whether a literal is a special token: text that no person writes and no other markup contains."""
    return bool(
        re.search(
            r"[|｜▁◁▷]|minimax|^\[/?[A-Z_]{5,}\]$|longcat|seed:|dots_|atem:|rfl:|steptml:|mm:|TOOLCALL|TOOL_REQUEST|<reserved_",
            literal,
        )
    )


PLAIN_LITERALS = [literal for literal in LITERALS if not is_unmistakable(literal)]
"""Literals that ordinary text may contain, such as `<answer>` or `</s>`."""
PIECES = (
    "{", "}", "[", "]", "(", ")", '"', "'", ":", ",", "=", "<", ">", "</", "/>", "|", "\\", "`", "```", "\n", " ", "\n\n",
    "save", "look", "save(", '{"name": "save", "arguments": {', '"text": ', "<parameter=text>", "</parameter>", "</function>",
    "</tool_call>", "<arg_key>text</arg_key>", "<arg_value>", "</arg_value>", "call:save{", "to=save", "é", "🎉", "\u2028",
    "\x00", "null", "1e5", "-", "\r\n", "\t", "***", "<p>", "&lt;", "functions.save:0", "true",
    "[save(text=e4)]", "1e400", "Infinity", "0x1f", "\\ud800", "\\u00e9", "'hi'", "print(len('abc'))", "}}}}", "[[[[", ";",
    "&amp;", "<parameter=", "<parameter name=", '<parameter name="', "<|im_end|>", "</s>", "[/tool_call]", "[tool_call:save]{",
    "<functions><save>", '<save text="x" />', "<tool_use><name>",
    '{"name": "save", "arguments": "{\\"text\\": \\"x\\"}"}', "[" * 120, "}" * 30, "<think>", "</think>", "[/THINK]", "\ud83d",
)  # fmt: skip


def damaged_text(rng: random.Random, dialect: str) -> str:
    """Return the calls of a dialect, with words around them; some tokens are missing, doubled, swapped or foreign."""
    calls = [rng.choice((SAVE, LOOK, PING, UNOFFERED, hostile_call(rng))) for _ in range(rng.randrange(1, 4))]
    before, after = (
        rng.choice(("", "", "W1Q ", "W1Q\n", "<think>W1Q</think>\n")),
        rng.choice(("", "", "\n", " W2Q", "\n\nW2Q")),
    )
    tokens = tokens_of(f"{before}{write(dialect, calls)}{after}")
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 5))):
        at = rng.randrange(len(tokens))
        match rng.randrange(6):
            case 0:
                tokens[at] = ""
            case 1:
                tokens[at] *= 2
            case 2 if at + 1 < len(tokens):
                tokens[at], tokens[at + 1] = tokens[at + 1], tokens[at]
            case 3:
                tokens[at] = rng.choice(LITERALS)
            case 4:
                tokens = tokens[: at + 1]
            case _:
                tokens[at] += rng.choice(PIECES)
    return "".join(tokens)


UNOFFERED: Call = {"name": "nope", "arguments": {"text": "W3Q"}}


def hostile_call(rng: random.Random) -> Call:
    """Return a call whose values hold literals of dialects."""
    text = f"W4Q{rng.choice(LITERALS)}{rng.choice(('', ' ', chr(10)))}W5Q"
    return {
        "name": "save",
        "arguments": {"text": text, "tags": [rng.choice(LITERALS), "x"], "more": {"a": rng.choice(PIECES)}},
    }


def tokens_of(text: str) -> list[str]:
    """Return the tags, marks and words of a text, which together are the text."""
    return [part for part in re.split(f'({TAG.pattern}|[{{}}\\[\\]():,"]|\\s+)', text) if part]


def mixed_text(rng: random.Random) -> str:
    """Return text of literals, rendered calls, pieces, halves of these, and numbered words."""
    parts: list[str] = []
    for number in range(rng.randrange(1, 40)):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice(LITERALS))
        elif kind < 0.4:
            example = EXAMPLES[rng.choice(WRITERS)]
            parts.append(example[: rng.randrange(len(example) + 1)] if rng.random() < 0.5 else example)
        elif kind < 0.5:
            literal = rng.choice(LITERALS)
            parts.append(literal[: rng.randrange(len(literal))])
        elif kind < 0.75:
            parts.append(rng.choice(PIECES))
        else:
            parts.append(f"W{number}Q")
    return "".join(parts)


def stretched(text: str, rng: random.Random) -> str:
    """Return the text with a long run somewhere, about as long as the parser looks ahead."""
    run, size = rng.choice((" ", "\n", " \n", "x", "a ", "word", "[", '"')), rng.choice(SIZES)
    at = rng.randrange(len(text) + 1)
    return text[:at] + (run * size)[:size] + text[at:]


def cut(text: str, rng: random.Random) -> list[str]:
    """Return the text in random pieces."""
    sizes = rng.choice(((1,), (1, 2, 3), (1, 2, 5, 20), (4,), (30, 100)))
    parts, at = [], 0
    while at < len(text):
        size = rng.choice(sizes)
        parts.append(text[at : at + size])
        at += size
    return parts
