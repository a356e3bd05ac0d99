"""MiniMax-M3: elements named after the parameters, each tag behind the token `]<]minimax[>[`.

Objects are nested elements and arrays repeated `<item>` elements. Without the token the same text is plain data.

Sources: MiniMax's tool-calling guide beside the model on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from lmdeck.sansio.calls import Calls
from lmdeck.sansio.dialects.declaration import Dialect, Marker, ReasoningTags
from lmdeck.sansio.markup import name_in, read_header
from lmdeck.sansio.source import MalformedCall, Reader, Source, TruncatedCall, stops
from lmdeck.sansio.toolbox import json_for, types_of

__all__ = ["DIALECTS"]

T = "]<]minimax[>["
TAG = stops(f"{T}<")
END_TAG = stops(f"{T}</")
BLOCK_END = f"{T}</tool_call>"
INVOKE = f"{T}<invoke name="


def block(source: Source, calls: Calls) -> Reader[None]:
    """Read the invokes of a block."""
    count = len(calls.made)
    while True:
        char = yield from source.skip_space()
        if (yield from source.take(stops(BLOCK_END))):
            return
        if not (yield from source.take(stops(INVOKE))):
            if not char and len(calls.made) == count:
                raise TruncatedCall
            if len(calls.made) == count:
                raise MalformedCall("a block without a call")
            return
        yield from invoke(source, calls)
        source.mark()


def invoke(source: Source, calls: Calls) -> Reader[None]:
    """Read one call, behind `<invoke name=`."""
    header, _ = yield from read_header(source)
    calls.open(name_in(header))
    calls.flush()
    calls.write("{")
    yield from members(source, calls, calls.toolbox.schemas.get(calls.name, {}), "invoke", 0)
    calls.write("}")
    calls.close()


def members(source: Source, calls: Calls, schema: Any, parent: str, depth: int) -> Reader[None]:
    """Read elements up to the parent's end, as the members of an object."""
    if depth > 60:
        raise MalformedCall("values nested too deep")
    declared = schema.get("properties") if isinstance(schema, Mapping) else None
    is_first = True
    while True:
        found = yield from source.until(TAG, _ignore)
        if not found:
            raise TruncatedCall
        if (yield from source.ahead(END_TAG)) or (yield from source.ahead(stops(BLOCK_END, INVOKE))):
            yield from end_of(source, calls, parent)
            return
        source.at += len(found)
        header, alone = yield from read_header(source)
        key = header.strip()
        calls.write(f"{'' if is_first else ', '}{encode_basestring(key)}: ")
        is_first = False
        inner = declared.get(key) if isinstance(declared, Mapping) else None
        if alone:
            calls.write(json_for("", types_of(inner, {})))
        else:
            yield from value(source, calls, inner, key, depth + 1)


def end_of(source: Source, calls: Calls, name: str) -> Reader[None]:
    """Read the end of an element; it may be missing where its parent's comes."""
    wanted = f"{T}</{name}>"
    if not (yield from source.take(stops(wanted))):
        calls.note("a missing closing element")


def value(source: Source, calls: Calls, schema: Any, name: str, depth: int) -> Reader[None]:
    """Read what stands in an element: text, members or items."""
    parts: list[str] = []
    found = yield from source.until(TAG, parts.append)
    if not found:
        raise TruncatedCall
    text = "".join(parts)
    types = types_of(schema, {})
    if (yield from source.ahead(END_TAG)):
        yield from end_of(source, calls, name)
        if not text.strip() and "string" not in types and types & {"array", "object"}:
            calls.write("[]" if "array" in types else "{}")
        else:
            calls.write(json_for(text, types))
    elif (yield from source.ahead(stops(f"{T}<item>", f"{T}<item/>"))):
        yield from items(source, calls, schema, name, depth)
    else:
        calls.write("{")
        yield from members(source, calls, schema, name, depth)
        calls.write("}")


def items(source: Source, calls: Calls, schema: Any, name: str, depth: int) -> Reader[None]:
    """Read repeated `<item>` elements as an array."""
    calls.write("[")
    is_first = True
    inner = schema.get("items") if isinstance(schema, Mapping) else None
    while True:
        found = yield from source.until(TAG, _ignore)
        if not found:
            raise TruncatedCall
        if not (yield from source.take(stops(f"{T}<item>"))):
            break
        calls.write("" if is_first else ", ")
        is_first = False
        yield from value(source, calls, inner, "item", depth + 1)
    yield from end_of(source, calls, name)
    calls.write("]")


def _ignore(_: str) -> None:
    """Drop white space between elements."""


DIALECTS = (
    Dialect(
        name="minimax-m3", models="MiniMax-M3",
        markers=(Marker(f"{T}<tool_call>", block), Marker(INVOKE, block, keeps=True)),
        reasoning=(ReasoningTags("<mm:think>", "</mm:think>"),),
        example=f'{T}<tool_call>\n{T}<invoke name="f">{T}<a>1{T}</a>{T}</invoke>\n{T}</tool_call>',
    ),
)  # fmt: skip
