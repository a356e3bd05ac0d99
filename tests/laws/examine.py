"""One text under the laws that need no expectation: nothing raises, cuts do not matter, every character is accounted for."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from laws.accounts import unaccounted
from laws.material import TOOLS, WRITERS, cut, damaged_text, mixed_text, stretched
from lmdeck import Chunk, ParsedMessage, StreamParser, dialects, parse

__all__ = ["Sample", "broken_law", "random_sample", "shrink"]

NAMES = (*("auto",) * len(dialects()), *dialects())
PREFIXES = ("", "", "", "", "", "", "", "", "<think>", "<|start|>assistant", ">>>")


@dataclass(frozen=True, slots=True)
class Sample:
    """A text, and how it is parsed."""

    text: str
    dialect: str = "auto"
    prefix: str = ""
    offers_tools: bool = True
    seed: int = 0


def random_sample(rng: random.Random) -> Sample:
    """Return a text of many dialects, or of one that is somewhat damaged; a few are stretched."""
    if rng.random() < 0.5:
        text, names = mixed_text(rng), NAMES
    else:
        dialect = rng.choice(WRITERS)
        text, names = damaged_text(rng, dialect), ("auto", dialect)
    if rng.random() < 0.05:
        text = stretched(text, rng)
    return Sample(text, rng.choice(names), rng.choice(PREFIXES), rng.random() < 0.9, rng.randrange(1 << 30))


def broken_law(sample: Sample) -> tuple[str, str] | None:
    """Return the law that a sample breaks and how, None where all hold."""
    tools = TOOLS if sample.offers_tools else None
    try:
        parse(sample.text, tools, sample.dialect, sample.prefix)
        whole, _ = _streamed([sample.text], sample, tools)
        parts = cut(sample.text, random.Random(sample.seed))
        pieces, chunks = _streamed(parts, sample, tools)
    except Exception as error:
        return "exception", f"{type(error).__name__}: {error}"
    if (before := _essence(whole)) != (after := _essence(pieces)):
        differing = [f"{a!r} / {b!r}" for a, b in zip(before, after, strict=True) if a != b]
        return "cuts", f"whole / in pieces: {'; '.join(differing)}"
    if wrong := _wrong_chunks(pieces, chunks):
        return "chunks", wrong
    if wrong := unaccounted(sample.text, pieces, chunks):
        return "conservation", wrong
    return None


def _streamed(
    parts: list[str], sample: Sample, tools: list[dict[str, Any]] | None
) -> tuple[ParsedMessage, list[Chunk]]:
    parser = StreamParser(tools, sample.dialect, sample.prefix)
    chunks = [chunk for part in parts for chunk in parser.feed(part)]
    chunks += parser.finish()
    return parser.result, chunks


def _essence(parsed: ParsedMessage) -> tuple[Any, ...]:
    return (
        parsed.content, parsed.reasoning,
        [(call.name, call.arguments, call.span) for call in parsed.tool_calls],
        [(problem.code, problem.detail, problem.raw, problem.span) for problem in parsed.problems],
    )  # fmt: skip


def _wrong_chunks(parsed: ParsedMessage, chunks: list[Chunk]) -> str | None:
    """Return how the chunks contradict the result, if they do."""
    if "".join(chunk.content for chunk in chunks).strip() != parsed.content:
        return "the streamed content is not the content"
    if "".join(chunk.reasoning for chunk in chunks).strip() != parsed.reasoning:
        return "the streamed reasoning is not the reasoning"
    if [chunk.tool_call for chunk in chunks if chunk.tool_call is not None] != parsed.tool_calls:
        return "the streamed calls are not the calls"
    if len({call.id for call in parsed.tool_calls}) != len(parsed.tool_calls):
        return "two calls have one id"
    if any(json.loads(call.raw_arguments) != call.arguments for call in parsed.tool_calls):
        return "the raw arguments are not the arguments"
    return None


def shrink(sample: Sample, law: str) -> Sample:
    """Return a shorter text that breaks the same law."""
    size = len(sample.text) // 2
    while size:
        at = 0
        while at < len(sample.text):
            shorter = Sample(
                sample.text[:at] + sample.text[at + size :],
                sample.dialect,
                sample.prefix,
                sample.offers_tools,
                sample.seed,
            )
            found = broken_law(shorter)
            if found is not None and found[0] == law:
                sample = shorter
            else:
                at += size
        size //= 2
    return sample
