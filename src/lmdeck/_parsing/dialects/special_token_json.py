"""JSON between special tokens that prose does not contain.

Used by InternLM 2, Apertus, GigaChat 3, Cohere's Command models, Phi-4-mini, FireFunction, Functionary 3.2, Solar Open, and
LM Studio's default prompt for models without tool support.

Sources: the models' chat templates on Hugging Face; vLLM, SGLang, llama.cpp; LM Studio's documentation, page "Tool use".
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.dialects.xml_tags import tag_block
from lmdeck._parsing.json_calls import CODE_TOOLS, code_arguments, json_arguments, json_calls
from lmdeck._parsing.members import Block
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, stops
from lmdeck._parsing.writers import array, call_object, each, template, wrapped

NAME = late_pattern(r"[\w.\-]*")
NEXT = stops(">>>")
ALL = stops(">>>all\n")
TO_ALL = stops("all\n")
SOURCES = late_pattern(r"[\d:,.\[\] \-]*")


def functionary(source: Source, sink: Sink) -> Reader[None]:
    """Read calls after `>>>`, each separately, as Functionary 3.2 writes them."""
    block = Block(source, sink)
    while True:
        begin = source.place
        if (yield from source.ends_inside(TO_ALL, least=3)):
            if block.has_calls:
                sink.report("repaired", "The header of a message is cut off", ">>>all", (begin, source.place))
            break
        yield from block.member(_named(source, sink), NEXT)
        if (yield from source.ahead(ALL)) or not (yield from source.take(NEXT)):
            break
    block.end()


def _named(source: Source, sink: Sink) -> Reader[None]:
    """Read `NAME`, a line end and JSON."""
    name = yield from source.collect_while(NAME)
    following = yield from source.peek()
    if not following and name:
        raise TruncatedCall
    is_offered = sink.tools.resolve(name) is not None
    if not name or following not in ("\n{ " if is_offered else "\n"):
        raise NotACall
    char = yield from source.skip_space()
    if not is_offered and char != "{":
        raise NotACall
    sink.open(name)
    sink.flush()
    if char == "{":
        yield from json_arguments(source, sink.write, sink, NEXT)
    elif name in CODE_TOOLS:
        yield from code_arguments(source, sink, NEXT)
    elif not char:
        raise TruncatedCall
    else:
        raise MalformedCall("the arguments are not an object")
    sink.close()


def message_to_all(source: Source, sink: Sink) -> Reader[None]:
    """Read a message to the user, and the calls after it, which need not begin a line."""
    wanted = stops(*(f">>>{name}\n" for name in sink.tools.schemas), ">>>all\n")
    while True:
        found = yield from source.until(wanted, sink.emit_content)
        source.mark()
        if not found:
            return
        sink.begin_block(source.place)
        source.at += 3
        if found == ">>>all\n":
            source.at += 4
        else:
            yield from functionary(source, sink)
            sink.end_block(source.place)


def after_separator(source: Source, sink: Sink) -> Reader[None]:
    """Read what follows `<|message_sep|>`: a call, or nothing."""
    place = source.place
    following = yield from source.skip_space()
    if (yield from source.take(stops("function call<|role_sep|>"))):
        yield from tag_block("</s>")(source, sink)
    elif following and not sink.is_at_start:
        token = "<|message_sep|>"
        sink.report("token_dropped", f"The token {token} was dropped", token, (place - len(token), place))


def citation(source: Source, sink: Sink) -> Reader[None]:
    """Skip the end of a citation, which names its sources."""
    begin = source.place
    sources = " " + (yield from source.collect_while(SOURCES))
    if (yield from source.take(stops(">"))):
        return
    source.unread(sources[len(sources.rstrip()) :])
    if sources.strip():
        detail = f"The end of a citation without its bracket was left out: {sources.strip()}"
        sink.report("text_left_out", detail, sources.strip(), (begin, source.place))


def marker_only(_: Source, __: Sink) -> Reader[None]:
    """Read nothing after the marker, which is dropped."""
    yield from ()


def solar_call(source: Source, sink: Sink) -> Reader[None]:
    """Read `ID<|tool_call:name|>NAME<|tool_call:args|>JSON<|tool_call:end|>`."""
    yield from source.collect(stops("<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"))
    if not (yield from source.take(stops("<|tool_call:name|>"))):
        raise MalformedCall("a call without a name")
    sink.open((yield from source.collect(stops("<|tool_call:args|>"))))
    sink.flush()
    yield from source.take(stops("<|tool_call:args|>"))
    if not (yield from source.skip_space()):
        raise TruncatedCall
    yield from json_arguments(source, sink.write, sink, stops("<|tool_call:end|>", "<|calls|>"))
    sink.close()
    yield from source.take(stops("<|tool_call:end|>"))


def functools(source: Source, sink: Sink) -> Reader[None]:
    """Read the array after `functools`."""
    if (yield from source.peek()) != "[":
        raise NotACall
    yield from json_calls(source, sink, stops("<|end|>"))


COHERE = (
    Marker("<|START_ACTION|>", tag_block("<|END_ACTION|>")),
    Marker("</co: ", citation, channel=True, inline=True, loose=True),
    Marker("<co>", marker_only, channel=True, inline=True, loose=True),
)
COHERE_THINK = ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>")
COHERE_DROPS = (
    *(f"<|{side}_{what}|>" for side in ("START", "END") for what in ("RESPONSE", "TEXT")), "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
FUNCTOOLS = (Marker("functools", functools, at_start=True),)
ACTIONS = array("<|START_ACTION|>", call_object("tool_name", "parameters"), "<|END_ACTION|>")

DIALECTS = (
    Dialect(
        name="internlm2", writes=each("<|action_start|><|plugin|>", call_object(arguments="parameters"), "<|action_end|>"),
        models="InternLM2.x",
        markers=tuple(Marker(f"<|action_start|>{gap}<|plugin|>", tag_block("<|action_end|>")) for gap in ("", " ", "\n")),
        architectures=("internlm2",),
        example='<|action_start|><|plugin|>{"name": "f", "parameters": {"a": 1}}<|action_end|>',
    ),
    Dialect(
        name="apertus", writes=array("<|tools_prefix|>", call_object(""), "<|tools_suffix|>"),
        models="Apertus 8B/70B", markers=(Marker("<|tools_prefix|>", tag_block("<|tools_suffix|>")),),
        reasoning=(ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>", anywhere=True),), architectures=("apertus",),
        example='<|tools_prefix|>[{"f": {"a": 1}}]<|tools_suffix|>',
    ),
    Dialect(
        name="gigachat3", writes=each("<|function_call|>", call_object(), ""),
        models="GigaChat3, 3.1",
        markers=(
            Marker("<|function_call|>", tag_block("<|/function_call|>")),
            Marker("<|message_sep|>", after_separator, channel=True),
            Marker("function call<|role_sep|>", tag_block("</s>"), at_start=True),
        ),
        drops=("</s>",), architectures=("gigachat3",),
        example='<|function_call|>{"name": "f", "arguments": {"a": 1}}',
    ),
    Dialect(
        name="command-a", writes=ACTIONS,
        models="Command A, Command A Reasoning, Command 4", markers=COHERE, reasoning=(COHERE_THINK,),
        drops=(*COHERE_DROPS, "<|END_THINKING|>"), architectures=("cohere2", "cohere2moe"),
        example='<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}\n]<|END_ACTION|>',
    ),
    Dialect(
        name="command-r7b", writes=ACTIONS,
        models="Command R7B 12-2024", markers=COHERE, reasoning=(COHERE_THINK,),
        drops=(*COHERE_DROPS, "<|END_THINKING|>"),
        example='<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}\n]<|END_ACTION|>',
    ),
    Dialect(
        name="command-r-plus", writes=array("Action:\n```json\n", call_object("tool_name", "parameters"), "\n```"),
        models="Command R+ 08-2024",
        markers=tuple(Marker(f"Action:{gap}```json", tag_block("```"), at_start=True) for gap in ("\n", " ")),
        architectures=("command-r",),
        drops=tuple(f"<|{token}_TOKEN|>" for token in ("CHATBOT", "START_OF_TURN", "END_OF_TURN")),
        example='Action:\n```json\n[{"tool_name": "f", "parameters": {"a": 1}}]\n```',
    ),
    Dialect(
        name="phi4-mini", writes=array("functools", call_object(), ""),
        models="Phi-4-mini", markers=FUNCTOOLS, architectures=("phi3",),
        example='functools[{"name": "f", "arguments": {"a": 1}}]',
    ),
    Dialect(
        name="firefunction", writes=array(" functools", call_object(), ""),
        models="FireFunction v2", markers=FUNCTOOLS,
        example=' functools[{"name": "f", "arguments": {"a": 1}}]',
    ),
    Dialect(
        name="functionary-v3.2", writes=each(">>>", template("$NAME\n$ARGS"), "", between=""), content_frame=(">>>all\n", ""),
        models="Functionary v3.2",
        markers=(
            Marker(">>>all\n", message_to_all, at_start=True, channel=True, loose=True),
            Marker(">>>", functionary, at_start=True),
        ),
        example='>>>f\n{"a": 1}',
    ),
    Dialect(
        name="solar-open", writes=wrapped(
            "<|tool_calls|>",
            template("<|tool_call:begin|>call-$AT<|tool_call:name|>$NAME<|tool_call:args|>$ARGS<|tool_call:end|>"),
            "<|calls|>",
        ),
        models="Solar Open", markers=(Marker("<|tool_call:begin|>", solar_call),),
        reasoning=(ReasoningTags("<|think|>", "<|end|>", anywhere=True),),
        drops=("<|begin|>assistant", "<|content|>", "<|tool_calls|>", "<|calls|>", "<|end|>", "<|flush|>"),
        example=(
            '<|tool_calls|><|tool_call:begin|>abc<|tool_call:name|>f<|tool_call:args|>{"a": 1}<|tool_call:end|><|calls|>'
        ),
    ),
    Dialect(
        name="lmstudio-default", writes=each("[TOOL_REQUEST]", call_object(), "[END_TOOL_REQUEST]"),
        models="any model without a template for tools, as LM Studio's default tool use asks it",
        markers=(Marker("[TOOL_REQUEST]", tag_block("[END_TOOL_REQUEST]")),),
        example='[TOOL_REQUEST]{"name": "f", "arguments": {"a": 1}}[END_TOOL_REQUEST]',
    ),
)  # fmt: skip
