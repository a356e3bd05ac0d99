"""The dialects with `<tool_call>` or a similar pair of tags around their calls.

* Hermes, Qwen2.5, Qwen3, QwQ, Granite 4, Reka, Ernie: one JSON object (`hermes-json`).
* Qwen3-Coder, Nemotron 3, Step 3.5, Seed-OSS: `<function=NAME>` with `<parameter=KEY>` elements (`qwen3-coder-xml`).
* GLM 4.5 and later, Ling 3, Laguna, Hunyuan 3: the name, then `<arg_key>` and `<arg_value>` elements (`glm45-xml`).
* Step-Audio 2: the line `function`, the name, then JSON (`step-audio2`).
* Granite 3, Hunyuan, Jamba, Apriel, Nemotron Nano 2, xLAM: a JSON array.

Sources: the models' chat templates on Hugging Face; the parsers of vLLM, SGLang, llama.cpp and Ollama.
"""

from __future__ import annotations

from msgspec.structs import replace

from lmdeck._parsing.dialects.dialect import Dialect, Marker, ReasoningTags
from lmdeck._parsing.dialects.xml_tags import (
    BARE_FUNCTION,
    FUNCTION,
    NAMED_FUNCTION,
    THINK,
    TOOL_CALL,
    coerced,
    tag_block,
)
from lmdeck._parsing.key_values import KeyValue
from lmdeck._parsing.writers import array, call_object, each, elements, pairs, template
from lmdeck._parsing.xml_calls import Elements

VERBATIM = replace(FUNCTION, trims=False)
IFM = KeyValue(
    key=("<ifm|arg_key>", "</ifm|arg_key>"), value=("<ifm|arg_value>", "</ifm|arg_value>"),
    kind=("<ifm|arg_type>", "</ifm|arg_type>"), ends=("</ifm|tool_call>",), begins="<ifm|tool_call>",
)  # fmt: skip
LONGCAT = KeyValue(
    key=("<longcat_arg_key>", "</longcat_arg_key>"), value=("<longcat_arg_value>", "</longcat_arg_value>"),
    ends=("</longcat_tool_call>",), begins="<longcat_tool_call>",
)  # fmt: skip
IQUEST = KeyValue(ends=("</iquest_tool_call>",), begins="<iquest_tool_call>")
IQUEST_CODER = KeyValue(ends=("</iquestcoder_tool_call>",), begins="<iquestcoder_tool_call>")
SOLAR = KeyValue(
    key=("<|tool_arg:start|>", "<|tool_arg:value|>"), value=("<|tool_arg:value|>", "<|tool_arg:end|>"),
    ends=("<|tool_call:end|>",), begins="<|tool_call:start|>",
)  # fmt: skip
OPEN_HUNYUAN = KeyValue(
    key=("<arg_key:opensource>", "</arg_key:opensource>"), value=("<arg_value:opensource>", "</arg_value:opensource>"),
    separator="<tool_sep:opensource>", begins="<tool_call:opensource>",
    ends=("</tool_call:opensource>", "<end_of_tool_call:opensource>"),
)  # fmt: skip
TOOL_CALLS = Marker("<tool_calls>", tag_block("</tool_calls>", inner="<tool_call>"))
OPEN_HUNYUAN_MARKERS = (
    Marker(
        "<tool_calls:opensource>",
        tag_block("</tool_calls:opensource>", pairs=OPEN_HUNYUAN, inner="<tool_call:opensource>"),
    ),
    Marker("<tool_call:opensource>", tag_block(*OPEN_HUNYUAN.ends, pairs=OPEN_HUNYUAN)),
)
FUNCTION_NAME = Marker(
    "<function name=",
    tag_block(
        elements=replace(
            FUNCTION, function=("<function name=", "<functionname=", "<functionĠname="), function_end=("</function>",),
            parameter=("<param name=", "<paramname=", "<paramĠname=", "<parameter name="), entities=True, declared_only=True,
        )
    ),
    keeps=True,
)  # fmt: skip
INVOKE = Elements(
    function=("<invoke name=",),
    function_end=("</invoke>",),
    parameter=("<parameter name=",),
    parameter_end=("</parameter>",),
)
M2 = Marker("<minimax:tool_call>", tag_block("</minimax:tool_call>", elements=INVOKE))
RESERVED = tuple(f"<{bar}reserved_{number}{bar}>" for bar in ("", "|") for number in range(12, 16))
APRIEL = ReasoningTags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]")
APRIEL_DROPS = ("[END FINAL RESPONSE]", "<|end|>")
RESPONSE = ("<response>", "</response>")
THOUGHT_PROCESS = tuple(
    ReasoningTags(f"{here} my thought process:", "Here is my response:", also_closes=("Here's my response:",))
    for here in ("Here is", "Here's")
)
BOX = ("<|begin_of_box|>", "<|end_of_box|>")
SEED_THINK = ReasoningTags("<seed:think>", "</seed:think>")
OBJECTS = each("<tool_call>\n", call_object(), "\n</tool_call>")
TIGHT_OBJECTS = each("<tool_call>", call_object(), "</tool_call>")
ARRAY = array("<tool_calls>", call_object(), "</tool_calls>")
TIGHT_ELEMENTS = elements("<function=$NAME>", "</function>", "<parameter=$KEY>", "</parameter>", between="")
LINED_ELEMENTS = elements("<function=$NAME>", "</function>", "<parameter=$KEY>", "</parameter>", pads_lines=True)
FUNCTIONS = each(
    "<tool_call>\n",
    elements("<function=$NAME>", "</function>", "<parameter=$KEY>", "</parameter>", around="\n"),
    "\n</tool_call>",
)
SEPARATED_PAIRS = each(
    "<tool_call>", pairs("<tool_sep>", ""), "</tool_call>", before="<tool_calls>", after="</tool_calls>"
)
NAMED_ELEMENTS = each(
    "", elements('<function name="$NAME">', "</function>", '<param name="$KEY">', "</param>", between=""), ""
)
M2_CALLS = each(
    "",
    elements('<invoke name="$NAME">', "</invoke>", '<parameter name="$KEY">', "</parameter>", pads_lines=True),
    "\n",
    before="<minimax:tool_call>\n",
    after="</minimax:tool_call>",
    between="",
)

DIALECTS = (
    Dialect(
        name="hermes-json", writes=OBJECTS,
        models="Hermes 2/3 Pro, Qwen2.5, Qwen3 (dense), QwQ, MiMo-VL, Qwen3-VL",
        markers=(TOOL_CALL,), reasoning=(THINK,), architectures=("qwen2", "qwen3", "qwen3vl"),
        example='<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
    ),
    Dialect(
        name="qwen3-coder-xml", writes=FUNCTIONS,
        models="Qwen3-Coder, Qwen3-Next, Qwen3.5 and later, MiniCPM-V",
        markers=(TOOL_CALL, BARE_FUNCTION, NAMED_FUNCTION), reasoning=(THINK,), drops=RESERVED,
        architectures=("qwen3moe", "qwen3next", "qwen35"),
        example="<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    ),
    Dialect(
        name="nemotron3", writes=FUNCTIONS,
        models="NVIDIA Nemotron-3-Nano, Nemotron 3.5", markers=(TOOL_CALL, BARE_FUNCTION),
        reasoning=(THINK,), architectures=("nemotron_h", "nemotron_h_moe"),
        example="<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    ),
    Dialect(
        name="mimo", writes=each("<tool_call>", TIGHT_ELEMENTS, "</tool_call>"),
        models="MiMo-V2, MiMo",
        markers=(
            Marker("<tool_call>", tag_block("</tool_call>", elements=VERBATIM)),
            Marker("<function=", tag_block(elements=VERBATIM), keeps=True),
        ),
        reasoning=(THINK,), architectures=("mimo2",),
        example="<tool_call><function=f><parameter=a>x</parameter></function></tool_call>",
    ),
    Dialect(
        name="step3.5", writes=FUNCTIONS,
        models="Step-3.5-Flash", reasoning=(THINK,),
        markers=(replace(TOOL_CALL), replace(BARE_FUNCTION)),
        architectures=("step35",),
        example="<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    ),
    Dialect(
        name="granite-thinking", writes=FUNCTIONS,
        models="Granite with thinking", markers=(TOOL_CALL, BARE_FUNCTION), reasoning=(THINK,),
        example="<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    ),
    Dialect(
        name="seed-oss", writes=each("<seed:tool_call>\n", LINED_ELEMENTS, "\n</seed:tool_call>"),
        models="ByteDance Seed-OSS", markers=(Marker("<seed:tool_call>", tag_block("</seed:tool_call>")),),
        reasoning=(SEED_THINK,), architectures=("seed_oss",),
        example="<seed:tool_call>\n<function=f>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
    ),
    Dialect(
        name="glm45-xml", writes=each("<tool_call>", pairs(), "</tool_call>"),
        models="GLM-4.5, GLM-4.6, GLM-4.5V, GLM-4.6V", markers=(TOOL_CALL,), reasoning=(THINK,), drops=BOX,
        architectures=("glm4moe", "glm4v", "glm4v_moe"),
        example="<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    ),
    Dialect(
        name="glm47", writes=each("<tool_call>", pairs(line=""), "</tool_call>"),
        models="GLM-4.7, GLM-4.7-Flash, GLM-5", markers=(TOOL_CALL,), reasoning=(THINK,),
        example="<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
    ),
    Dialect(
        name="ling3", writes=each("<tool_call>", pairs(line=""), "</tool_call>"),
        models="Ling 3", markers=(TOOL_CALL,), reasoning=(THINK,), drops=("<|role_end|>",),
        example="<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>",
    ),
    Dialect(
        name="iquest-q1", writes=each("<iquest_tool_call>", pairs(line=""), "</iquest_tool_call>"),
        models="IQuest Q1", markers=(Marker("<iquest_tool_call>", tag_block("</iquest_tool_call>", pairs=IQUEST)),),
        reasoning=(THINK,), drops=("<|iquest_end|>",),
        example="<iquest_tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></iquest_tool_call>",
    ),
    Dialect(
        name="iquest-coder-v2", writes=each("<iquestcoder_tool_call>", pairs(line=""), "</iquestcoder_tool_call>"),
        models="IQuest Coder V2",
        markers=(Marker("<iquestcoder_tool_call>", tag_block("</iquestcoder_tool_call>", pairs=IQUEST_CODER)),),
        reasoning=(THINK,),
        example="<iquestcoder_tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></iquestcoder_tool_call>",
    ),
    Dialect(
        name="solar-open2",
        writes=each(
            "<|tool_call:start|>",
            elements("$NAME", "", "<|tool_arg:start|>$KEY<|tool_arg:value|>", "<|tool_arg:end|>"),
            "<|tool_call:end|>",
        ),
        models="Solar Open 2", markers=(Marker("<|tool_call:start|>", tag_block("<|tool_call:end|>", pairs=SOLAR)),),
        reasoning=(ReasoningTags("<|think:start|>", "<|think:end|>"),),
        example="<|tool_call:start|>f\n<|tool_arg:start|>a<|tool_arg:value|>1<|tool_arg:end|>\n<|tool_call:end|>",
    ),
    Dialect(
        name="poolside-v1", writes=each("<tool_call>", pairs(), "</tool_call>"),
        models="Poolside Laguna", reasoning=(THINK,), bare="{",
        markers=(TOOL_CALL,), only_if_known=(Marker("<user>", tag_block("</user>")),),
        example="<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    ),
    Dialect(
        name="hunyuan-v3", writes=SEPARATED_PAIRS,
        models="Hunyuan (HY) V3, V4", markers=(TOOL_CALLS, TOOL_CALL, *OPEN_HUNYUAN_MARKERS),
        reasoning=(THINK, ReasoningTags("<think:opensource>", "</think:opensource>")),
        example="<tool_calls><tool_call>f<tool_sep><arg_key>a</arg_key><arg_value>1</arg_value></tool_call></tool_calls>",
    ),
    Dialect(
        name="hunyuan", writes=ARRAY,
        models="Hunyuan-A13B", markers=(TOOL_CALLS,), reasoning=(THINK,), drops=("<answer>", "</answer>"),
        architectures=("hunyuan-moe", "hunyuan-dense"),
        example='<tool_calls>[{"name": "f", "arguments": {"a": 1}}]</tool_calls>',
    ),
    Dialect(
        name="jamba", writes=ARRAY,
        models="Jamba", markers=(TOOL_CALLS,), architectures=("jamba",),
        example='<tool_calls>[\n    {"name": "f", "arguments": {"a": 1}}\n]</tool_calls>',
    ),
    Dialect(
        name="apriel-1.5", writes=ARRAY,
        models="Apriel 1.5", markers=(TOOL_CALLS,), reasoning=(APRIEL,), drops=APRIEL_DROPS,
        example='<tool_calls>[{"name": "f", "arguments": {"a": 1}}]</tool_calls>',
    ),
    Dialect(
        name="apriel-1.6", writes=ARRAY,
        models="Apriel 1.6", markers=(TOOL_CALLS,),
        reasoning=(APRIEL,), drops=APRIEL_DROPS,
        example='<tool_calls>[{"name": "f", "arguments": {"a": 1}}]</tool_calls>',
    ),
    Dialect(
        name="granite", writes=array("<|tool_call|> ", call_object(), ""),
        models="Granite 3.0–3.3",
        markers=(Marker("<|tool_call|>", tag_block("</|tool_call|>", "</tool_call>")), TOOL_CALL), reasoning=(THINK,),
        drops=RESPONSE, architectures=("granite", "granitemoe"),
        example='<|tool_call|> [{"name": "f", "arguments": {"a": 1}}]',
    ),
    Dialect(
        name="granite4", writes=TIGHT_OBJECTS,
        models="Granite 4.x", markers=(TOOL_CALL,), reasoning=(THINK,), architectures=("granitehybrid",),
        example='<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    ),
    Dialect(
        name="granite-reasoning", models="Granite 3.2/3.3 reasoning",
        reasoning=(*THOUGHT_PROCESS, THINK),
        shown="Here is my thought process: … Here is my response: …",
    ),
    Dialect(
        name="granite-20b-fc", writes=each("<function_call> ", call_object(), ""),
        models="Granite-20B-FunctionCalling",
        markers=(Marker("<function_call>", tag_block("</function_call>")),),
        example='<function_call> {"name": "f", "arguments": {"a": 1}}',
    ),
    Dialect(
        name="nemotron", writes=array("<TOOLCALL>", call_object(), "</TOOLCALL>"),
        models="Nemotron-Nano-v2", markers=(Marker("<TOOLCALL>", tag_block("</TOOLCALL>")),),
        reasoning=(THINK,), example='<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>',
    ),
    Dialect(
        name="exaone4", writes=TIGHT_OBJECTS,
        models="EXAONE 4", markers=(TOOL_CALL,), reasoning=(THINK,), architectures=("exaone4",),
        example='<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>',
    ),
    Dialect(
        name="trinity", writes=OBJECTS,
        models="Arcee Trinity", markers=(TOOL_CALL,), reasoning=(THINK,), architectures=("afmoe",),
        example='<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
    ),
    Dialect(
        name="reka", writes=OBJECTS,
        models="Reka-Edge", markers=(TOOL_CALL,), reasoning=(THINK,),
        example='<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
    ),
    Dialect(
        name="ernie45", writes=each("<tool_call>\n", call_object(), "\n</tool_call>\n"),
        models="ERNIE-4.5-Thinking", markers=(TOOL_CALL,), reasoning=(THINK,),
        drops=(*RESPONSE, "<0x0A>"), architectures=("ernie4_5", "ernie4_5-moe"),
        example='<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n',
    ),
    Dialect(
        name="step-audio2", writes=each("<tool_call>", template("function\n$NAME\n$ARGS"), "</tool_call>", between=""),
        models="Step-Audio 2", markers=(TOOL_CALL,), reasoning=(THINK,),
        example='<tool_call>function\nf\n{"a": 1}</tool_call>',
    ),
    Dialect(
        name="longcat", writes=each("<longcat_tool_call>", call_object(), "</longcat_tool_call>"),
        models="LongCat-Flash",
        markers=(Marker("<longcat_tool_call>", tag_block("</longcat_tool_call>", pairs=LONGCAT)),),
        reasoning=(ReasoningTags("<longcat_think>", "</longcat_think>"),),
        example='<longcat_tool_call>{"name": "f", "arguments": {"a": 1}}</longcat_tool_call>',
    ),
    Dialect(
        name="k2-horizon", writes=each(
            "<ifm|tool_call>", pairs(line="", space="ifm|"), "</ifm|tool_call>",
            before="<ifm|tool_calls>", after="</ifm|tool_calls>", between="",
        ),
        models="K2-Horizon (K2-V3)",
        markers=(
            Marker("<ifm|tool_calls>", coerced(tag_block("</ifm|tool_calls>", pairs=IFM, inner="<ifm|tool_call>"))),
            Marker("<ifm|tool_call>", coerced(tag_block("</ifm|tool_call>", pairs=IFM))),
        ),
        reasoning=tuple(
            ReasoningTags(f"<ifm|think{kind}>", f"</ifm|think{kind}>", anywhere=True) for kind in ("", "_fast", "_faster")
        ),
        example=(
            "<ifm|tool_calls><ifm|tool_call>f<ifm|arg_key>a</ifm|arg_key><ifm|arg_value>1</ifm|arg_value>"
            "</ifm|tool_call></ifm|tool_calls>"
        ),
    ),
    Dialect(
        name="dots", writes=each("<dots_function_call>", call_object(), "</dots_function_call>"),
        models="dots", markers=(Marker("<dots_function_call>", tag_block("</dots_function_call>")),),
        example='<dots_function_call>{"name":"f","arguments":{"a":1}}</dots_function_call>',
    ),
    Dialect(
        name="minimax-m2", writes=M2_CALLS,
        models="MiniMax-M2, M2.x",
        markers=(M2, replace(M2, text="<invoke name=", keeps=True)), reasoning=(THINK,),
        architectures=("minimax-m2",),
        example='<minimax:tool_call>\n<invoke name="f">\n<parameter name="a">1</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    Dialect(
        name="minimax-append-think", models="MiniMax-M2 whose server restores `<think>`", reasoning=(THINK,),
        shown="as minimax-m2",
    ),
    Dialect(
        name="minicpm5-xml", writes=NAMED_ELEMENTS,
        models="MiniCPM5", architectures=("minicpm5",),
        markers=(FUNCTION_NAME, replace(FUNCTION_NAME, text="<functionname="), replace(FUNCTION_NAME, text="<functionĠname=")),
        reasoning=(THINK,), byte_level=True, example='<function name="f"><param name="a">x</param></function>',
    ),
    Dialect(
        name="think-tags", models="Qwen3, GLM, Nemotron and many more: reasoning", reasoning=(THINK,),
        shown="<think>…</think>",
    ),
    Dialect(
        name="kimi-vl", models="Kimi-VL thinking", reasoning=(ReasoningTags("◁think▷", "◁/think▷"),), shown="◁think▷…◁/think▷"
    ),
)  # fmt: skip
