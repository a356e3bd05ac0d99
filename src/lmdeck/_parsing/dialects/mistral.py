"""Mistral: `[TOOL_CALLS]` with an array, an object, or `NAME[ARGS]{…}` after it.

Salesforce's xLAM uses it as well.

Sources: Mistral's `mistral-common` tokenizers; the models' chat templates on Hugging Face; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.dialects.xml_tags import THINK, TOOL_CALL, tag_block
from lmdeck._parsing.json_calls import json_arguments, json_calls, json_objects
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import NotACall, Reader, Source, TruncatedCall, stops
from lmdeck._parsing.writers import array, call_object, each, template

NAME = late_pattern(r"[\w.\-:/$]*")


def mistral(source: Source, sink: Sink) -> Reader[None]:
    """Read the calls after `[TOOL_CALLS]`: an array, an object, or `NAME[ARGS]{…}`."""
    ends = stops("[TOOL_CALLS]", "[/TOOL_CALLS]", "</s>")
    char = yield from source.skip_space()
    while (yield from source.take(stops("[TOOL_CALLS]"))):
        char = yield from source.skip_space()
    if char == "[" and (yield from _is_array(source)):
        yield from json_calls(source, sink, ends)
    elif char == "{":
        yield from json_objects(source, sink, ends)
    else:
        name = yield from source.collect_while(NAME)
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if not name or (char not in "[{"):
            raise NotACall
        sink.open(name)
        sink.flush()
        if (yield from source.take(stops("[CALL_ID]"))):
            yield from source.collect(stops("[ARGS]", "{"))
        yield from source.take(stops("[ARGS]"))
        if not (yield from source.skip_space()):
            raise TruncatedCall
        yield from json_arguments(source, sink.write, sink, ends)
        sink.close()
    source.mark()
    yield from source.skip_space()
    yield from source.take(stops("[/TOOL_CALLS]"))


def _is_array(source: Source) -> Reader[bool]:
    return not (yield from source.ahead(stops("[ARGS]")))


MISTRAL = (Marker("[TOOL_CALLS]", mistral),)
MISTRAL_THINK = ReasoningTags("[THINK]", "[/THINK]", anywhere=True)
MISTRAL_ARGS = each("[TOOL_CALLS]", template("$NAME[ARGS]$ARGS"), "", between="")
FENCED = Marker("```json", tag_block("```"), at_start=True)

DIALECTS = (
    Dialect(
        name="mistral-v3", writes=array("[TOOL_CALLS] ", call_object(), ""),
        models="Mistral 7B v0.3, Nemo, Small 2409", markers=MISTRAL, architectures=("llama-mistral",),
        reasoning=(MISTRAL_THINK,), drops=("</s>",), example='[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]',
    ),
    Dialect(
        name="mistral-v11", writes=MISTRAL_ARGS,
        models="Mistral Small 3.1/3.2, Devstral, Ministral 3", markers=MISTRAL,
        architectures=("mistral3",), reasoning=(MISTRAL_THINK,), drops=("</s>",),
        example='[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}',
    ),
    Dialect(
        name="mistral-v13", writes=MISTRAL_ARGS,
        models="Magistral 2507 and later, Ministral 3 with reasoning", markers=MISTRAL,
        reasoning=(MISTRAL_THINK, THINK), drops=("</s>",), example='[THINK]r[/THINK][TOOL_CALLS]f[ARGS]{"a": 1}',
    ),
    Dialect(
        name="xlam", writes=array("", call_object(), ""),
        models="Salesforce xLAM",
        markers=(TOOL_CALL, *MISTRAL), only_if_known=(FENCED,), reasoning=(THINK,), bare="[{",
        example='[{"name": "f", "arguments": {"a": 1}}]',
    ),
)  # fmt: skip
