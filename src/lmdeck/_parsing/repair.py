"""Arguments of a native call that are no JSON object: read what was meant, and say what was put right."""

from __future__ import annotations

from lmdeck._parsing.dialects.xml_tags import FUNCTION
from lmdeck._parsing.literals import LiteralReader
from lmdeck._parsing.offered_tools import Toolbox
from lmdeck._parsing.sink import Calls, decode_arguments
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall
from lmdeck._parsing.xml_calls import parameters
from lmdeck.events import Chunk

__all__ = ["repaired_arguments"]


def repaired_arguments(raw: str, name: str, toolbox: Toolbox) -> tuple[str, list[str]] | None:
    """Give arguments as JSON text and what was repaired, None where they cannot be read.

    Broken JSON is put right as it is in the text of an answer; Qwen3-Coder's `<parameter=KEY>` elements, which engines have
    passed through as arguments (opencode #1585), become an object.
    """
    notes: list[str] = []
    parts: list[str] = []
    text = raw.strip()
    if text.startswith("<"):
        reader = _elements(text, name, toolbox, parts)
        notes.append("XML instead of JSON")
    else:
        reader = LiteralReader(Source(text, closed=True), parts.append, notes.append, closes_at_end=True).read()
    try:
        for _ in reader:
            pass
    except (MalformedCall, NotACall, TruncatedCall):
        return None
    written = "".join(parts)
    value = decode_arguments(written)
    return (written, list(dict.fromkeys(notes))) if isinstance(value, dict) else None


def _elements(text: str, name: str, toolbox: Toolbox, parts: list[str]) -> Reader[None]:
    chunks: list[Chunk] = []
    calls = Calls(toolbox, str)
    calls.chunks = chunks
    calls.name = name
    end = FUNCTION.function_end[0]
    source = Source(text if end in text else text + end, closed=True)
    head = source.text.find(FUNCTION.parameter[0])
    if head < 0 or FUNCTION.parameter_end[0] not in text:
        raise NotACall
    source.at = head
    yield from parameters(source, calls, FUNCTION)
    calls.flush()
    parts.extend(chunk.tool_call_delta.arguments for chunk in chunks if chunk.tool_call_delta)
