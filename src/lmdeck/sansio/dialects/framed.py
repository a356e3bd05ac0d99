"""JSON behind a header or between special tokens that no prose contains.

DeepSeek V3 and V3.1, Kimi K2, PLaMo 3, Step 3, Mistral, InternLM 2, Apertus, GigaChat 3, Cohere's Command models, Phi-4-mini,
FireFunction and Functionary 3.2. DeepSeek writes its tokens with full-width bars (U+FF5C) and low blocks (U+2581), Step 3 with
full-width bars and plain low lines.

Sources: the models' chat templates on Hugging Face; Mistral's `mistral-common` tokenizers; vLLM, SGLang, llama.cpp.
"""

from __future__ import annotations

import re

from lmdeck.sansio.calls import Calls, decode_arguments
from lmdeck.sansio.dialects.declaration import BodyReader, Dialect, Marker, ReasoningTags
from lmdeck.sansio.dialects.tagged import THINK, TOOL_CALL, tagged
from lmdeck.sansio.markup import Elements, elements_call
from lmdeck.sansio.payloads import CODE_TOOLS, code_arguments, json_arguments, json_call, json_calls
from lmdeck.sansio.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, UnofferedCall, stops
from lmdeck.sansio.writing import array, call_object, each, elements, template, wrapped

__all__ = ["DIALECTS", "headed"]

NAME = re.compile(r"[\w.\-:/$]*")
SOURCES = re.compile(r"[\d:,.\[\] \-]*")
INDEX = re.compile(r":\d+$")


def headed(  # noqa: C901 - one grammar, read top down
    *, calls_end: tuple[str, ...], begin: tuple[str, ...], after_name: tuple[str, ...], end: tuple[str, ...],
    lead: tuple[str, ...] = (), before_json: tuple[str, ...] = (), after_json: tuple[str, ...] = (),
    elements: Elements | None = None, begun: bool = False,
) -> BodyReader:  # fmt: skip
    """Make the reader of a section in which each call is `begin` NAME `after_name` JSON `end`."""
    opening, ending = stops(*begin), stops(*calls_end, *end)
    name_ends = stops(*after_name, *end, *calls_end, "{", "\n")

    def read(source: Source, calls: Calls) -> Reader[None]:
        inside = begun
        made = len(calls.made)
        while True:
            yield from source.skip_space()
            if not inside and not (yield from source.take(opening)):
                if (yield from source.take(stops(*end))):
                    continue
                if len(calls.made) > made:
                    yield from source.take(stops(*calls_end))
                    return
                yield from calls.leave_out(source, stops(*begin, *calls_end), "Text before a call")
                if not (yield from source.peek()):
                    raise TruncatedCall
                if (yield from source.take(stops(*calls_end))):
                    return
                continue
            inside = False
            if lead:
                yield from source.skip_space()
                yield from source.take(stops(*lead))
            if elements and (yield from source.ahead(stops(*elements.function))):
                yield from elements_call(source, calls, elements)
            elif (yield from source.skip_space()) == "{":
                yield from json_call(source, calls, ending)
            else:
                yield from one(source, calls)
            source.mark()
            yield from source.skip_space()
            yield from source.take(stops(*after_json)) if after_json else ()
            yield from source.skip_space()
            yield from source.take(stops(*end))
            source.mark()

    def one(source: Source, calls: Calls) -> Reader[None]:
        header = (yield from source.collect(name_ends)).strip()
        if header.isdigit():
            yield from nameless(source, calls)
            return
        calls.open(INDEX.sub("", header))
        calls.flush()
        yield from source.skip_space()
        yield from source.take(stops(*after_name))
        if before_json:
            yield from source.skip_space()
            yield from source.take(stops(*before_json))
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if char != "{" and (yield from source.ahead(ending)):
            calls.close()
            return
        yield from json_arguments(source, calls.write, calls, ending)
        calls.close()

    def nameless(source: Source, calls: Calls) -> Reader[None]:
        """Read a call whose name is only its number: the one tool that has such parameters is meant."""
        yield from source.take(stops(*after_name))
        parts: list[str] = []
        yield from json_arguments(source, parts.append, calls, ending)
        keys = set(decode_arguments("".join(parts)) or {})
        fitting = [name for name in calls.toolbox.schemas if keys and keys <= set(calls.toolbox.properties(name))]
        if len(fitting) != 1:
            raise UnofferedCall("a call without a name")
        calls.note("a missing name")
        calls.open(fitting[0])
        calls.write("".join(parts))
        calls.close()

    return read


def mistral(source: Source, calls: Calls) -> Reader[None]:
    """Read what follows `[TOOL_CALLS]`: an array, an object, or `NAME[ARGS]{…}`."""
    ends = stops("[TOOL_CALLS]", "[/TOOL_CALLS]", "</s>")
    char = yield from source.skip_space()
    while (yield from source.take(stops("[TOOL_CALLS]"))):
        char = yield from source.skip_space()
    if char == "[" and (yield from _is_array(source)):
        yield from json_calls(source, calls, ends)
    elif char == "{":
        while char == "{":
            yield from json_call(source, calls, ends)
            source.mark()
            char = yield from source.skip_space()
            if char in ",;":
                source.at += bool(char)
                char = yield from source.skip_space()
    else:
        name = yield from source.collect_while(NAME)
        char = yield from source.skip_space()
        if not char:
            raise TruncatedCall
        if not name or (char not in "[{"):
            raise NotACall
        calls.open(name)
        calls.flush()
        if (yield from source.take(stops("[CALL_ID]"))):
            yield from source.collect(stops("[ARGS]", "{"))
        yield from source.take(stops("[ARGS]"))
        if not (yield from source.skip_space()):
            raise TruncatedCall
        yield from json_arguments(source, calls.write, calls, ends)
        calls.close()
    source.mark()
    yield from source.skip_space()
    yield from source.take(stops("[/TOOL_CALLS]"))


def _is_array(source: Source) -> Reader[bool]:
    return not (yield from source.ahead(stops("[ARGS]")))


def functionary(source: Source, calls: Calls) -> Reader[None]:
    """Read `NAME`, a line end and JSON, as Functionary 3.2 does behind `>>>`."""
    name = yield from source.take(stops(*calls.toolbox.schemas))
    following = yield from source.peek()
    if not name or following not in "\n{ ":
        raise NotACall
    if not following:
        raise TruncatedCall
    calls.open(name)
    calls.flush()
    char = yield from source.skip_space()
    if char == "{":
        yield from json_arguments(source, calls.write, calls, stops(">>>"))
    elif name in CODE_TOOLS:
        yield from code_arguments(source, calls, stops(">>>"))
    else:
        raise MalformedCall("the arguments are no object")
    calls.close()


def everyone(source: Source, calls: Calls) -> Reader[None]:
    """Read a message to the user, and the calls behind it, which need no new line."""
    wanted = stops(*(f">>>{name}\n" for name in calls.toolbox.schemas), ">>>all\n")
    while True:
        found = yield from source.until(wanted, calls.say)
        source.mark()
        if not found:
            return
        source.at += 3
        if found == ">>>all\n":
            source.at += 4
        else:
            yield from functionary(source, calls)


def after_separator(source: Source, calls: Calls) -> Reader[None]:
    """Read what follows `<|message_sep|>`: a call, or nothing."""
    yield from source.skip_space()
    if (yield from source.take(stops("function call<|role_sep|>"))):
        yield from tagged("</s>")(source, calls)


def tool_output(source: Source, calls: Calls) -> Reader[None]:
    """Leave out the tool's result that a model made up."""
    yield from calls.leave_out(source, stops("<｜tool▁outputs▁end｜>"), "A tool's result that the model made up")
    yield from source.take(stops("<｜tool▁outputs▁end｜>"))


def citation(source: Source, _: Calls) -> Reader[None]:
    """Leave out the end of a citation, which names its sources."""
    yield from source.collect_while(SOURCES)
    yield from source.skip_space()
    yield from source.take(stops(">"))


def nothing(_: Source, __: Calls) -> Reader[None]:
    """Read nothing: the marker itself is left out."""
    yield from ()


def solar_call(source: Source, calls: Calls) -> Reader[None]:
    """Read `ID<|tool_call:name|>NAME<|tool_call:args|>JSON<|tool_call:end|>`."""
    yield from source.collect(stops("<|tool_call:name|>"))
    yield from source.take(stops("<|tool_call:name|>"))
    calls.open((yield from source.collect(stops("<|tool_call:args|>"))))
    calls.flush()
    yield from source.take(stops("<|tool_call:args|>"))
    if not (yield from source.skip_space()):
        raise TruncatedCall
    yield from json_arguments(source, calls.write, calls, stops("<|tool_call:end|>", "<|calls|>"))
    calls.close()
    yield from source.take(stops("<|tool_call:end|>"))


def functools(source: Source, calls: Calls) -> Reader[None]:
    """Read the array behind `functools`."""
    if (yield from source.peek()) != "[":
        raise NotACall
    yield from json_calls(source, calls, stops("<|end|>"))


DEEPSEEK = headed(
    calls_end=("<｜tool▁calls▁end｜>", "<|tool▁calls▁end|>"), begin=("<｜tool▁call▁begin｜>", "<|tool▁call▁begin|>"),
    lead=("function<｜tool▁sep｜>", "function<|tool▁sep|>"), after_name=("<｜tool▁sep｜>", "<|tool▁sep|>"),
    before_json=("```json",), after_json=("```",), end=("<｜tool▁call▁end｜>", "<|tool▁call▁end|>"),
)  # fmt: skip
DEEPSEEK_MARKERS = (
    Marker("<｜tool▁calls▁begin｜>", DEEPSEEK), Marker("<|tool▁calls▁begin|>", DEEPSEEK),
    Marker("<｜tool▁call▁begin｜>", DEEPSEEK, keeps=True),
    Marker("<｜tool▁outputs▁begin｜>", tool_output, channel=True),
)  # fmt: skip
OUTPUTS = tuple(f"<｜tool▁output{s}▁{side}｜>" for s in ("",) for side in ("begin", "end"))
KIMI = headed(
    calls_end=("<|tool_calls_section_end|>", "<|tool_call_section_end|>"), begin=("<|tool_call_begin|>",),
    after_name=("<|tool_call_argument_begin|>",), end=("<|tool_call_end|>",),
)  # fmt: skip
PLAMO = headed(
    calls_end=("<|plamo:end_tool_requests:plamo|>",),
    begin=("<|plamo:begin_tool_request:plamo|>",),
    lead=("<|plamo:begin_tool_name:plamo|>",),
    after_name=("<|plamo:end_tool_name:plamo|>",),
    before_json=("<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>",
                 "<|plamo:begin_tool_arguments:plamo|><|plamo:msg|>"),
    after_json=("<|plamo:end_tool_arguments:plamo|>",),
    end=("<|plamo:end_tool_request:plamo|>",),
)  # fmt: skip
STEP = headed(
    calls_end=("<｜tool_calls_end｜>",), begin=("<｜tool_call_begin｜>",), lead=("function<｜tool_sep｜>",),
    after_name=("<｜tool_sep｜>",), end=("<｜tool_call_end｜>",),
    elements=Elements(
        function=("<steptml:invoke name=",), function_end=("</steptml:invoke>",),
        parameter=("<steptml:parameter name=",), parameter_end=("</steptml:parameter>",),
        ends=("<｜tool_call_end｜>", "<｜tool_calls_end｜>"),
    ),
)  # fmt: skip
MISTRAL = (Marker("[TOOL_CALLS]", mistral),)
MISTRAL_THINK = ReasoningTags("[THINK]", "[/THINK]", anywhere=True)
COHERE = (
    Marker("<|START_ACTION|>", tagged("<|END_ACTION|>")),
    Marker("</co: ", citation, channel=True, inline=True),
    Marker("<co>", nothing, channel=True, inline=True),
)
COHERE_THINK = ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>")
COHERE_DROPS = (
    *(f"<|{side}_{what}|>" for side in ("START", "END") for what in ("RESPONSE", "TEXT")), "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
FENCED = Marker("```json", tagged("```"), at_start=True)
FUNCTOOLS = (Marker("functools", functools, at_start=True),)
DEEPSEEK_BEGIN, DEEPSEEK_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
DEEPSEEK_FENCED = wrapped(
    DEEPSEEK_BEGIN,
    template("<｜tool▁call▁begin｜>function<｜tool▁sep｜>$NAME\n```json\n$ARGS\n```<｜tool▁call▁end｜>"),
    DEEPSEEK_END,
    "\n",
)
DEEPSEEK_PLAIN = wrapped(
    DEEPSEEK_BEGIN, template("<｜tool▁call▁begin｜>$NAME<｜tool▁sep｜>$ARGS<｜tool▁call▁end｜>"), DEEPSEEK_END
)
MISTRAL_ARGS = each("[TOOL_CALLS]", template("$NAME[ARGS]$ARGS"), "", between="")
ACTIONS = array("<|START_ACTION|>", call_object("tool_name", "parameters"), "<|END_ACTION|>")
PLAMO_CALLS = wrapped(
    "<|plamo:begin_tool_requests:plamo|>",
    template(
        "<|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>$NAME<|plamo:end_tool_name:plamo|>"
        "<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>$ARGS<|plamo:end_tool_arguments:plamo|>"
        "<|plamo:end_tool_request:plamo|>"
    ),
    "<|plamo:end_tool_requests:plamo|>",
)
STEP3_CALLS = wrapped(
    "<｜tool_calls_begin｜>",
    elements(
        '<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="$NAME">',
        "</steptml:invoke><｜tool_call_end｜>",
        '<steptml:parameter name="$KEY">',
        "</steptml:parameter>",
        between="",
    ),
    "<｜tool_calls_end｜>",
)

DIALECTS = (
    Dialect(
        name="deepseek-v3", writes=DEEPSEEK_FENCED,
        models="DeepSeek-V3, R1-0528", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        architectures=("deepseek2",),
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="deepseek-r1", writes=DEEPSEEK_FENCED,
        models="DeepSeek-R1 and its distillations", markers=DEEPSEEK_MARKERS, reasoning=(THINK,),
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="cogito", writes=DEEPSEEK_FENCED,
        models="Cogito v2", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        example=(
            '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        ),
    ),
    Dialect(
        name="deepseek-v3.1", writes=DEEPSEEK_PLAIN,
        models="DeepSeek-V3.1", markers=DEEPSEEK_MARKERS, reasoning=(THINK,), drops=OUTPUTS,
        example='<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Dialect(
        name="kimi-k2", writes=wrapped(
            "<|tool_calls_section_begin|>",
            template("<|tool_call_begin|>functions.$NAME:$AT<|tool_call_argument_begin|>$ARGS<|tool_call_end|>"),
            "<|tool_calls_section_end|>",
        ),
        models="Kimi-K2, K2-Thinking, K2.5",
        markers=(
            Marker("<|tool_calls_section_begin|>", KIMI, final=True),
            Marker("<|tool_call_section_begin|>", KIMI, final=True),
            Marker("<|tool_call_begin|>", KIMI, keeps=True, final=True),
        ),
        reasoning=(THINK,), architectures=("kimi-k2",),
        example=(
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
            '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>'
        ),
    ),
    Dialect(
        name="plamo3", writes=PLAMO_CALLS,
        models="PLaMo 3",
        markers=(
            Marker("<|plamo:begin_tool_requests:plamo|>", PLAMO, final=True),
            Marker("<|plamo:begin_tool_request:plamo|>", PLAMO, keeps=True, final=True),
        ),
        reasoning=(ReasoningTags("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),),
        drops=("<|plamo:end_think:plamo|>", "<|plamo:msg|>", "<|plamo:op|>", "<|plamo:tag|>"), architectures=("plamo3",),
        example=(
            "<|plamo:begin_tool_requests:plamo|><|plamo:begin_tool_request:plamo|><|plamo:begin_tool_name:plamo|>f"
            "<|plamo:end_tool_name:plamo|><|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>"
            '{"a": 1}<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|><|plamo:end_tool_requests:plamo|>'
        ),
    ),
    Dialect(
        name="step3", writes=STEP3_CALLS,
        models="Step-3",
        markers=(Marker("<｜tool_calls_begin｜>", STEP), Marker("<｜tool_call_begin｜>", STEP, keeps=True)),
        reasoning=(THINK,),
        example=(
            '<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="f">'
            '<steptml:parameter name="a">1</steptml:parameter></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>'
        ),
    ),
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
        name="internlm2", writes=each("<|action_start|><|plugin|>", call_object(arguments="parameters"), "<|action_end|>"),
        models="InternLM2.x",
        markers=tuple(Marker(f"<|action_start|>{gap}<|plugin|>", tagged("<|action_end|>")) for gap in ("", " ", "\n")),
        architectures=("internlm2",),
        example='<|action_start|><|plugin|>{"name": "f", "parameters": {"a": 1}}<|action_end|>',
    ),
    Dialect(
        name="apertus", writes=array("<|tools_prefix|>", call_object(""), "<|tools_suffix|>"),
        models="Apertus 8B/70B", markers=(Marker("<|tools_prefix|>", tagged("<|tools_suffix|>")),),
        reasoning=(ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>", anywhere=True),), architectures=("apertus",),
        example='<|tools_prefix|>[{"f": {"a": 1}}]<|tools_suffix|>',
    ),
    Dialect(
        name="gigachat3", writes=each("<|function_call|>", call_object(), ""),
        models="GigaChat3, 3.1",
        markers=(
            Marker("<|function_call|>", tagged("<|/function_call|>")),
            Marker("<|message_sep|>", after_separator, channel=True),
            Marker("function call<|role_sep|>", tagged("</s>"), at_start=True),
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
        markers=tuple(Marker(f"Action:{gap}```json", tagged("```"), at_start=True) for gap in ("\n", " ")),
        architectures=("command-r",),
        example='Action:\n```json\n[{"tool_name": "f", "parameters": {"a": 1}}]\n```',
    ),
    Dialect(
        name="xlam", writes=array("", call_object(), ""),
        models="Salesforce xLAM",
        markers=(TOOL_CALL, *MISTRAL), own=(FENCED,), reasoning=(THINK,), bare="[{",
        example='[{"name": "f", "arguments": {"a": 1}}]',
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
        name="functionary-v3.2", writes=each(">>>", template("$NAME\n$ARGS"), "", between=""),
        models="Functionary v3.2",
        markers=(
            Marker(">>>all\n", everyone, at_start=True, channel=True), Marker(">>>", functionary, at_start=True),
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
        markers=(Marker("[TOOL_REQUEST]", tagged("[END_TOOL_REQUEST]")),),
        example='[TOOL_REQUEST]{"name": "f", "arguments": {"a": 1}}[END_TOOL_REQUEST]',
    ),
)  # fmt: skip
