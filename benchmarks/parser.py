"""What the parser costs: CPU for long arguments in 4-character deltas, a delta of prose, and random text.

    python benchmarks/parser.py [--characters N]

Asked: 16× (± 15 %) more CPU for 16× longer arguments, at most 4 µs a delta, at most 1 µs a delta of prose, and no exception
on any text over the markers' alphabet.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

from lmdeck import StreamParser
from lmdeck._parsing.dialects import REGISTRY

TOOLS = [
    {"type": "function", "function": {"name": "write", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}, "rows": {"type": "array"}}}}},
]  # fmt: skip
SIZES = (4 << 10, 64 << 10, 1 << 20)


def deltas(text: str, size: int = 4) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def cpu(parts: list[str], **options) -> float:
    best = float("inf")
    for _ in range(3 if len(parts) < 100_000 else 2):
        parser = StreamParser(**options)
        feed = parser.feed
        begin = time.process_time()
        for part in parts:
            feed(part)
        parser.finish()
        best = min(best, time.process_time() - begin)
    return best


def bodies(size: int) -> dict[str, str]:
    text = ("Lorem ipsum dolor sit amet, consectetur 'adipiscing' elit é. " * (size // 60 + 1))[:size]
    rows = list(range(size // 7))
    quoted = json.dumps(text)
    return {
        "hermes-json, text": f'<tool_call>{{"name": "write", "arguments": {{"text": {quoted}}}}}</tool_call>',
        "hermes-json, numbers": f'<tool_call>{{"name": "write", "arguments": {{"rows": {rows}}}}}</tool_call>',
        "hermes-json, arguments in a string": "<tool_call>"
        + json.dumps({"name": "write", "arguments": json.dumps({"text": text})}) + "</tool_call>",
        "qwen3-coder-xml": f"<tool_call>\n<function=write>\n<parameter=text>\n{text}\n</parameter>\n</function>\n</tool_call>",
        "qwen3-coder-xml, array": f"<tool_call><function=write><parameter=rows>{rows}</parameter></function></tool_call>",
        "glm45-xml": f"<tool_call>write\n<arg_key>text</arg_key>\n<arg_value>{text}</arg_value>\n</tool_call>",
        "llama4-pythonic": f"[write(text={text!r}, rows={rows})]",
        "gemma4": f'<|tool_call>call:write{{text:<|"|>{text}<|"|>}}<tool_call|>',
        "gpt-oss-harmony": f'<|channel|>commentary to=functions.write<|message|>{{"text": {quoted}}}<|call|>',
        "mistral-v11": f'[TOOL_CALLS]write[ARGS]{{"text": {quoted}}}',
        "unclosed reasoning": f"<think>{text}",
        "arguments before the name": f'<tool_call>{{"arguments": {{"text": {quoted}}}, "name": "write"}}</tool_call>',
    }  # fmt: skip


def show_long_arguments() -> None:
    print(
        f"{'one call, 4-character deltas':36}"
        + "".join(f"{size >> 10:>9} KB" for size in SIZES)
        + "   µs a delta   growth"
    )
    each = [bodies(size) for size in SIZES]
    for name in each[0]:
        parts = [deltas(of_size[name]) for of_size in each]
        times = [cpu(part, tools=TOOLS) for part in parts]
        growth = [
            f"{b / a * len(p) / len(q) * 16:.1f}"
            for a, b, p, q in zip(times, times[1:], parts, parts[1:], strict=False)
        ]
        shown = "".join(f"{took * 1e3:>9.2f} ms" for took in times)
        print(f"{name:36}{shown}{times[-1] / len(parts[-1]) * 1e6:>10.2f}      {' '.join(growth)}")


def show_prose() -> None:
    prose = ("The quick brown fox jumps over the lazy dog; 3 of 4 agree, says the report.\n" * 4000)[: 1 << 18]
    parts = deltas(prose)
    for name, tools in (("prose, tools offered", TOOLS), ("prose, no tools", None)):
        took = cpu(parts, tools=tools)
        print(f"{name:36}{took / len(parts) * 1e6:>10.2f} µs a delta")


def show_random(characters: int) -> None:
    markers = sorted({marker.text for dialect in REGISTRY.values() for marker in dialect.markers})
    alphabet = [
        *sorted(set("".join(markers))),
        "write",
        '{"name": "write", "arguments": {',
        "</tool_call>",
        "<think>",
        "</think>",
    ]
    rng, done, begin = random.Random(7), 0, time.process_time()
    while done < characters:
        pieces = rng.choices([*alphabet, *markers], k=rng.choice((20, 200, 2000)))
        text = "".join(pieces)
        parser = StreamParser(TOOLS)
        given = sum(len(chunk.content) + len(chunk.reasoning) for piece in pieces for chunk in parser.feed(piece))
        given += sum(len(chunk.content) + len(chunk.reasoning) for chunk in parser.finish())
        result = parser.result
        if given > len(text) + 8 * len(result.tool_calls):
            raise AssertionError(f"more came out than went in: {text!r}")
        done += len(text)
    print(f"{'random text':36}{done:>10} characters, {(time.process_time() - begin) / done * 1e6:.2f} µs each")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--characters", type=int, default=200_000)
    show_long_arguments()
    show_prose()
    show_random(options.parse_args().characters)
    return 0


if __name__ == "__main__":
    sys.exit(main())
