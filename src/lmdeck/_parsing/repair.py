"""Repair native arguments that are not a JSON object, and report the repairs."""

from __future__ import annotations

from lmdeck._chunks import Chunk
from lmdeck._parsing.argument_values import decode_arguments
from lmdeck._parsing.dialects.xml_tags import FUNCTION
from lmdeck._parsing.literals import LiteralReader
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, run_whole
from lmdeck._parsing.xml_calls import parameters


def repaired_arguments(raw: str, name: str, tools: OfferedTools) -> tuple[str, list[str]] | None:
    """Return arguments as JSON text and a list of repairs, or None if they cannot be read.

    Broken JSON is repaired as in the text of an answer; Qwen3-Coder's `<parameter=KEY>` elements, which engines have
    passed through as arguments (opencode #1585), become an object.
    """
    notes: list[str] = []
    parts: list[str] = []
    text = raw.strip()
    if text.startswith("<"):
        reader = _elements(text, name, tools, parts)
        notes.append("XML instead of JSON")
    else:
        reader = LiteralReader(Source(text, closed=True), parts.append, notes.append, closes_at_end=True).read()
    try:
        run_whole(reader)
    except (MalformedCall, NotACall, TruncatedCall):
        return None
    written = "".join(parts)
    value = decode_arguments(written)
    return (written, list(dict.fromkeys(notes))) if isinstance(value, dict) else None


def _elements(text: str, name: str, tools: OfferedTools, parts: list[str]) -> Reader[None]:
    chunks: list[Chunk] = []
    end = FUNCTION.function_end[0]
    source = Source(text if end in text else text + end, closed=True)
    sink = Sink(tools, str, source)
    sink.chunks = chunks
    sink.name = name
    head = source.text.find(FUNCTION.parameter[0])
    if head < 0 or FUNCTION.parameter_end[0] not in text:
        raise NotACall
    source.at = head
    yield from parameters(source, sink, FUNCTION)
    sink.flush()
    parts.extend(chunk.tool_call_delta.arguments for chunk in chunks if chunk.tool_call_delta)
