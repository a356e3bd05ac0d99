"""MiniMax-M3: elements named after the parameters, each tag after the token `]<]minimax[>[`.

Objects are nested elements and arrays repeated `<item>` elements. Without the token the same text is plain data.

Sources: MiniMax's tool-calling guide beside the model on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring

from lmdeck._limits import DEFAULT_LIMITS
from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.members import Block
from lmdeck._parsing.offered_tools import STRING, json_for, types_of
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, Reader, Source, TruncatedCall, stops
from lmdeck._parsing.value_ends import ValueEnd, read_value
from lmdeck._parsing.writers import Call, value_text
from lmdeck._parsing.xml_calls import name_in, read_header

T = "]<]minimax[>["
TAG = stops(f"{T}<")
END_TAG = stops(f"{T}</")
BLOCK_END = f"{T}</tool_call>"
INVOKE = f"{T}<invoke name="
INVOKE_END = f"{T}</invoke>"
PARTS = stops(BLOCK_END, INVOKE)
M2_PARAMETER = "parameter name="


def block(source: Source, sink: Sink) -> Reader[None]:
    """Read the invokes of a block, each separately."""
    calls_of_block = Block(source, sink)
    is_first = True
    while True:
        char = yield from source.skip_space()
        if (yield from source.take(stops(BLOCK_END))):
            break
        if not (yield from source.ahead(stops(INVOKE))):
            is_cut = yield from source.ends_inside(PARTS, least=1)
            if is_first and (is_cut or not char):
                raise TruncatedCall
            if is_first:
                raise MalformedCall("a block without a call")
            break
        yield from calls_of_block.member(invoke(source, sink), stops(BLOCK_END, INVOKE), tags=stops(INVOKE_END))
        is_first = False
    calls_of_block.end()


def invoke(source: Source, sink: Sink) -> Reader[None]:
    """Read one call, from its opening element on."""
    yield from source.take(stops(INVOKE))
    header, _ = yield from read_header(source, sink)
    sink.open(name_in(header))
    sink.flush()
    sink.write("{")
    yield from members(source, sink, sink.tools.schemas.get(sink.name, {}))
    sink.write("}")
    sink.close()


def members(source: Source, sink: Sink, schema: object) -> Reader[None]:
    """Read parameters up to the end of the invoke; each is written when it is complete."""
    declared = schema.get("properties") if isinstance(schema, Mapping) else None
    is_first = True
    while True:
        char = yield from source.skip_space()
        if not char or (yield from source.ends_inside(TAG)):
            raise TruncatedCall
        if not (yield from source.ahead(TAG)):
            raise MalformedCall("expected a parameter, found text")
        if (yield from source.ahead(stops(BLOCK_END, INVOKE, INVOKE_END))):
            yield from end_of(source, sink, "invoke")
            return
        if (yield from source.ahead(END_TAG)):
            raise MalformedCall("a parameter ends without a beginning")
        source.at += len(T) + 1
        header, alone = yield from read_header(source, sink)
        key, element = header.strip(), header.strip()
        if key.startswith(M2_PARAMETER):  # oh-my-pi #2759: an element of MiniMax-M2
            key, element = name_in(key.removeprefix(M2_PARAMETER)), "parameter"
            sink.note("an element of MiniMax-M2")
        inner = declared.get(key) if isinstance(declared, Mapping) else None
        written = (
            json_for("", types_of(inner, {})) if alone else (yield from member(source, sink, inner, element, declared))
        )
        sink.write_key(key, is_first=is_first)
        sink.write(written)
        is_first = False


def member(source: Source, sink: Sink, schema: object, name: str, declared: object) -> Reader[str]:
    """Return the value of a parameter as JSON; if its type is string, markup in it is text."""
    if types_of(schema, {}) != STRING:
        return (yield from value(source, sink, schema, name, 1))
    names = declared if isinstance(declared, Mapping) else {}
    end = ValueEnd(
        own=(f"{T}</{name}>",), opens=(f"{T}<",), call_ends=(f"{T}</invoke>",), block_ends=(BLOCK_END, INVOKE),
        odd=(f"</{name}>", T), is_opening=lambda text: text.partition(">")[0] in names,
    )  # fmt: skip
    parts: list[str] = []
    if not (yield from read_value(source, parts.append, end, sink)):
        raise TruncatedCall
    text = "".join(parts)
    yield from end_of(source, sink, name, text)
    return encode_basestring(text)


def end_of(source: Source, sink: Sink, name: str, text: str = "") -> Reader[None]:
    """Read the end tag of an element; it may be missing before the end tag of its parent.

    Raises:
        MalformedCall: It is missing, and the element's `text` may contain a part of it.
    """
    if (yield from source.take(stops(f"{T}</{name}>"))):
        return
    if "<" in text:
        raise MalformedCall(f"the element {name!r} has no end")
    sink.note("a missing closing element")


def value(source: Source, sink: Sink, schema: object, name: str, depth: int) -> Reader[str]:
    """Return the inside of an element as JSON: text, members or items.

    Text between members becomes the member `$text`.
    """
    if depth > DEFAULT_LIMITS.nested_values:
        raise MalformedCall(f"more than {DEFAULT_LIMITS.nested_values} nested values")
    texts: list[str] = []
    found: dict[str, list[str]] = {}
    declared = schema.get("properties") if isinstance(schema, Mapping) else None
    while True:
        if not (yield from source.until(TAG, texts.append)):
            raise TruncatedCall
        if (yield from source.ahead(END_TAG)) or (yield from source.ahead(stops(BLOCK_END, INVOKE))):
            break
        source.at += len(T) + 1
        header, alone = yield from read_header(source, sink)
        key = header.strip()
        if not key:
            raise MalformedCall("an element has no name")
        inner = declared.get(key) if isinstance(declared, Mapping) else None
        if key == "item" and isinstance(schema, Mapping) and inner is None:
            inner = schema.get("items")
        written = (
            json_for("", types_of(inner, {})) if alone else (yield from value(source, sink, inner, key, depth + 1))
        )
        found.setdefault(key, []).append(written)
    text, types = "".join(texts), types_of(schema, {})
    yield from end_of(source, sink, name, text)
    if found and types and types.isdisjoint({"array", "object"}):
        raise MalformedCall(f"expected {' or '.join(sorted(types))} in the element {name!r}, found elements")
    if found:
        return _container(found, text, types)
    if not text.strip() and "string" not in types and types & {"array", "object"}:
        return "[]" if "array" in types else "{}"
    return encode_basestring(text) if types == STRING else json_for(text, types)


def _container(found: dict[str, list[str]], text: str, types: frozenset[str]) -> str:
    """Write members as an object, or repeated items as an array."""
    if list(found) == ["item"] and not text.strip() and types != {"object"}:
        return f"[{', '.join(found['item'])}]"
    if text.strip():
        key = "$text"
        while key in found:
            key = "$" + key
        found[key] = [encode_basestring(text.strip())]
    written = (
        f"{encode_basestring(key)}: {values[0] if len(values) == 1 else _array(values)}"
        for key, values in found.items()
    )
    return "{" + ", ".join(written) + "}"


def _array(values: list[str]) -> str:
    return f"[{', '.join(values)}]"


def write_calls(calls: Sequence[Call]) -> str:
    """Write calls: every tag after the namespace token, objects as members, arrays as items."""
    inside = "".join(
        f'{T}<invoke name="{name}">{"".join(_written(key, value) for key, value in arguments.items())}{T}</invoke>\n'
        for name, arguments in calls
    )
    return f"{T}<tool_call>\n{inside}{T}</tool_call>"


def _written(key: str, value: object) -> str:
    if isinstance(value, Mapping) and value:
        inside = "".join(_written(name, item) for name, item in value.items())
    elif isinstance(value, list) and value:
        inside = "".join(_written("item", item) for item in value)
    else:
        inside = value_text(value)
    return f"{T}<{key}>{inside}{T}</{key}>"


DIALECTS = (
    Dialect(
        name="minimax-m3", writes=write_calls,
        models="MiniMax-M3",
        markers=(Marker(f"{T}<tool_call>", block), Marker(INVOKE, block, keeps=True)),
        reasoning=(ReasoningTags("<mm:think>", "</mm:think>"),),
        example=f'{T}<tool_call>\n{T}<invoke name="f">{T}<a>1{T}</a>{T}</invoke>\n{T}</tool_call>',
    ),
)  # fmt: skip
