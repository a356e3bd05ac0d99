"""Nothing a model wrote is lost: random text over the alphabet of all markers, in which every word is numbered."""

from __future__ import annotations

import json
import os
import random
import re

from lmdeck import StreamParser
from lmdeck._parsing.dialects import REGISTRY

CHARACTERS = int(os.environ.get("LMDECK_FUZZ_CHARACTERS", "2000000"))
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "string"}, "n": {"type": "integer"}, "list": {"type": "array"}},
            },
        },
    }
    for name in ("f", "save", "python")
]
MARKERS = sorted(
    {marker.text for dialect in REGISTRY.values() for marker in dialect.markers}
    | {text for dialect in REGISTRY.values() for tag in dialect.reasoning for text in (tag.open, tag.close)}
    | {drop for dialect in REGISTRY.values() for drop in dialect.drops}
)
EXAMPLES = sorted({dialect.example for dialect in REGISTRY.values() if dialect.example})
PIECES = (
    "{", "}", "[", "]", "(", ")", '"', "'", ":", ",", "=", "<", ">", "</", "/>", "|", "\\", "`", "```", "\n", " ", "\n\n",
    "f", "save", "f(", '{"name": "f", "arguments": {', '"a": ', "<parameter=a>", "</parameter>", "</function>", "</tool_call>",
    "<arg_key>a</arg_key>", "<arg_value>", "</arg_value>", "call:f{", "to=f", "é", "🎉", "\u2028", "\x00", "null", "1e5", "-",
)  # fmt: skip


def random_text(rng: random.Random) -> tuple[str, list[str]]:
    """Give text of markers, pieces, halves of both and numbered words, and those words."""
    parts: list[str] = []
    words: list[str] = []
    for number in range(rng.randrange(1, 40)):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice(MARKERS))
        elif kind < 0.4:
            example = rng.choice(EXAMPLES)
            parts.append(example[: rng.randrange(len(example) + 1)] if rng.random() < 0.5 else example)
        elif kind < 0.5:
            marker = rng.choice(MARKERS)
            parts.append(marker[: rng.randrange(len(marker))])
        elif kind < 0.75:
            parts.append(rng.choice(PIECES))
        else:
            words.append(f"W{number}Q")
            parts.append(words[-1])
    return "".join(parts), words


def test_every_word_comes_out_somewhere() -> None:
    """As content, as reasoning, in a call or in the problem that tells what was left out; under every cut alike."""
    rng = random.Random(os.environ.get("LMDECK_FUZZ_SEED", "0"))
    names = ["auto", "auto", "auto", *REGISTRY]
    done = 0
    while done < CHARACTERS:
        text, words = random_text(rng)
        dialect = rng.choice(names)
        prefix = rng.choice(("", "", "<think>", "<|start|>assistant", ">>>"))
        results = []
        for size in (max(1, len(text)), rng.randrange(1, 9)):
            parser = StreamParser(TOOLS, dialect, prefix, new_id=lambda: "id")
            chunks = [chunk for at in range(0, len(text), size) for chunk in parser.feed(text[at : at + size])]
            chunks += parser.finish()
            result = parser.result
            assert "".join(chunk.content for chunk in chunks).strip() == result.content
            assert "".join(chunk.reasoning for chunk in chunks).strip() == result.reasoning
            results.append(result)
            done += len(text)
        whole, cut = results
        assert (whole.content, whole.reasoning, whole.tool_calls) == (cut.content, cut.reasoning, cut.tool_calls), text
        given = "\n".join((
            whole.content, whole.reasoning, *(problem.detail for problem in whole.problems),
            *(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in whole.tool_calls),
        ))  # fmt: skip
        ids = "".join(re.findall(r"<\|tool_call:begin\|>(.*?)<\|tool_call:name\|>", text, re.DOTALL))
        missing = [word for word in words if word not in given and word not in ids]
        assert not missing, (dialect, prefix, text, missing, whole)
