"""Answers cut into messages with a channel or a recipient: what is reasoning, content or a call stands in the message's header.

* Harmony (gpt-oss): `<|start|>assistant<|channel|>analysis<|message|>…<|end|>`; Beam puts XML into it, Muse addresses messages
  with `to=self`, `to=user` or a tool's name.
* Inkling: `<|message_model|>HEADER<|content_text|>…<|end_message|>`.
* Kimi K3: `<|open|>response<|sep|>…<|close|>response<|sep|>`.

Sources: OpenAI's Harmony guide; Kimi's and Inkling's chat templates; vLLM, SGLang, llama.cpp, Ollama.
"""

from __future__ import annotations

import re
from string import ascii_letters

from lmdeck.sansio.calls import Calls
from lmdeck.sansio.dialects.declaration import Dialect, Marker
from lmdeck.sansio.markup import Elements, elements_calls, parameters
from lmdeck.sansio.payloads import json_arguments, json_call, typed_value
from lmdeck.sansio.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, UnofferedCall, stops
from lmdeck.sansio.writing import each, elements, template, wrapped

__all__ = ["DIALECTS"]

RECIPIENT = re.compile(r"\bto=([^\s<]+)")
CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*"((?:[^"\\]|\\.)*)\"""")
HEADER_END = stops("<|message|>", "<|end|>", "<|return|>", "<|eom|>", "<|eot|>")
MESSAGE_ENDS = stops(
    "<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>",
    *(f"<|start|>{role}" for role in ("assistant", "user", "system", "developer", "tool", "functions")),
    *(f"<|channel|>{kind}" for kind in ("analysis", "commentary", "final")),
)  # fmt: skip
ADDRESSED_ENDS = stops("<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>")
ADDRESS = re.compile(r"to=[\w.\-]*(?:(<\|(?:message|channel)\|>)|<[|a-z]*\Z|\Z)")
STRAY = stops("commentary<|", "analysis<|", "final<|", "assistant<|")
BUILTIN = ("browser", "python", "assistant", "container")
ATEM = Elements(
    function=("<atem:invoke name=",), function_end=("</atem:invoke>",), parameter=("<atem:parameter name=",),
    parameter_end=("</atem:parameter>",), ends=("</atem:function_calls>", "<|eom|>", "<|eot|>"), trims=False,
)  # fmt: skip
RFL = Elements(
    function=("<rfl:invoke name=",), function_end=("<|end|>", "<|call|>", "</rfl:invoke>"),
    parameter=("<rfl:parameter name=",), parameter_end=("</rfl:parameter>",), ends=("<|start|>",),
)  # fmt: skip
HEADER_LIMIT = 400
KNOWN_HEADER = re.compile(
    r"<\|start\|>\s*(?:assistant|user|system|developer|tool|functions)?(?:\.[\w.\-]+)?"
    r"|<\|channel\|>\s*(?:analysis|commentary|final)?|<\|constrain\|>\s*(?:json|xml)?"
)
HEADER = re.compile(r"(?:<\|start\|>[\w.\-]*)?\s*(?:to=|<\|channel\|>\s*\w|$)")


def header_of(source: Source, calls: Calls) -> Reader[str]:
    """Read a message's header up to its text; give it, or nothing where the message has no text."""
    header, end = yield from source.within(HEADER_END, HEADER_LIMIT)
    if end != "<|message|>" and header.startswith("to="):
        raise NotACall
    if not end:
        raise TruncatedCall
    if not HEADER.match(header):
        raise NotACall
    source.at += len(end)
    if stray := KNOWN_HEADER.sub("", RECIPIENT.sub("", header, count=1)).strip():
        calls.dropped("text_left_out", f"{stray!r} in the header of a message was left out")
    if end == "<|message|>":
        return header
    if recipient := RECIPIENT.search(header):
        calls.dropped("text_left_out", f"A message to {recipient.group(1)!r} had no text")
    return ""


def message(source: Source, calls: Calls, default: str = "user") -> Reader[None]:
    """Read one message, from its first token on; without channel and recipient it is for `default`."""
    header = yield from header_of(source, calls)
    if not header:
        return
    recipient, channel = RECIPIENT.search(header), CHANNEL.search(header)
    kind = channel.group(1) if channel else ""
    name = recipient.group(1) if recipient else "" if kind or "assistant" not in header else default
    ends = ADDRESSED_ENDS if recipient and name == "user" and not kind else MESSAGE_ENDS
    if name == "self" or (kind == "analysis" and not name):
        yield from source.until(ends, calls.think)
    elif not name or name in ("user", "commentary"):
        calls.separate(kind)
        yield from source.until(ends, calls.say)
    elif name == "developer":
        yield from calls.leave_out(source, ends, "A message to the developer")
    elif calls.toolbox:
        yield from addressed(source, calls, name)
    else:
        calls.say(source.marked())
        calls.say((yield from source.take(stops((yield from source.until(ends, calls.say))))))
        return
    yield from end_of_message(source)


def muse_message(source: Source, calls: Calls) -> Reader[None]:
    """Read one of Muse's messages: without a recipient it is reasoning."""
    yield from message(source, calls, "self")


def bare_message(source: Source, calls: Calls) -> Reader[None]:
    """Read a message whose header the template had written: for the user."""
    yield from source.until(MESSAGE_ENDS, calls.say)
    yield from end_of_message(source)


def bare_thought(source: Source, calls: Calls) -> Reader[None]:
    """Read a message whose header the template had written: reasoning."""
    yield from source.until(MESSAGE_ENDS, calls.think)
    yield from end_of_message(source)


def recipient(source: Source, calls: Calls) -> Reader[None]:
    """Read a message that begins with its recipient, `to=NAME<|message|>`."""
    begin = source.text[source.at : source.at + 3]
    size = 3
    while True:
        found = ADDRESS.match(source.text, source.at)
        if found is None:
            raise NotACall
        size = found.end() - source.at
        if found.group(1) is not None or source.closed or size > HEADER_LIMIT:
            break
        yield
    if found.group(1) is None or not begin:
        raise NotACall
    yield from message(source, calls)


def end_of_message(source: Source) -> Reader[None]:
    """Read the token that ends a message, and the stray channel name that gpt-oss may put behind it."""
    if (yield from source.take(stops("<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>"))):
        source.mark()
        if (yield from source.take(STRAY)):
            source.at -= 2


def addressed(source: Source, calls: Calls, name: str) -> Reader[None]:
    """Read a message to a tool."""
    bare = name.removeprefix("functions.")
    if calls.toolbox.resolve(name) is None and bare.split(".")[0] in BUILTIN:
        yield from calls.leave_out(source, MESSAGE_ENDS, f"A message to the built-in tool {name!r}")
        return
    char = yield from source.skip_space()
    if (yield from source.take(stops("<atem:function_calls>"))) or (yield from source.ahead(stops(*ATEM.function))):
        yield from elements_calls(source, calls, ATEM)
        yield from source.skip_space()
        yield from source.take(stops("</atem:function_calls>"))
    elif (yield from source.ahead(stops(*RFL.parameter))):
        calls.open(name)
        calls.flush()
        yield from parameters(source, calls, RFL)
        calls.close()
    else:
        calls.open(name)
        calls.flush()
        if not char:
            raise TruncatedCall
        if char == "{":
            yield from json_arguments(source, calls.write, calls, MESSAGE_ENDS)
        elif not (yield from source.ahead(MESSAGE_ENDS)):
            raise MalformedCall("the arguments are no object")
        calls.close()
    source.mark()
    yield from calls.leave_out(source, MESSAGE_ENDS, "Text behind the arguments")


CONTENT_KINDS = stops(
    "<|content_text|>", "<|content_thinking|>", "<|content_invoke_tool_json|>", "<|content_invoke_tool_text|>",
    "<|content_audio_input|>", "<|end_message|>", "<|message_model|>", "<|message_user|>",
)  # fmt: skip
MESSAGE_END = stops(
    "<|end_message|>", "<|message_model|>", "<|message_user|>", "<|content_text|>", "<|content_thinking|>",
    "<|content_model_end_sampling|>",
)  # fmt: skip


def inkling(source: Source, calls: Calls) -> Reader[None]:
    """Read one of Inkling's messages, from its first token on."""
    yield from source.take(stops("<|message_model|>"))
    header: list[str] = []
    kind = yield from source.until(CONTENT_KINDS, header.append)
    if not kind:
        raise TruncatedCall
    said = "".join(header).strip()
    if said and "invoke_tool" not in kind:
        calls.dropped("text_left_out", f"{said!r} in the header of a message was left out")
    source.at += len(kind) if kind not in ("<|message_model|>", "<|message_user|>") else 0
    if kind == "<|content_text|>":
        yield from source.until(MESSAGE_END, calls.say)
    elif kind == "<|content_thinking|>":
        yield from source.until(MESSAGE_END, calls.think)
    elif "invoke_tool" in kind:
        yield from inkling_call(source, calls, said)
    yield from source.take(stops("<|end_message|>"))


def named(source: Source, calls: Calls) -> Reader[None]:
    """Read a message that begins with the tool's name, its first token being the template's."""
    while True:
        found = LEAD.match(source.text, source.at)
        if found is None:
            raise NotACall
        if found.group(1) is not None or source.closed or found.end() - source.at > HEADER_LIMIT:
            break
        yield
    if not (found.group(1) or "").startswith("<|content_invoke_tool_"):
        raise NotACall
    yield from inkling(source, calls)


def inkling_call(source: Source, calls: Calls, name: str) -> Reader[None]:
    """Read `{"name": …, "args": …}`; the header may name the tool as well."""
    if not calls.toolbox:
        calls.say(source.marked())
        calls.say((yield from source.take(stops((yield from source.until(MESSAGE_END, calls.say))))))
        return
    char = yield from source.skip_space()
    if char == "{":
        yield from json_call(source, calls, MESSAGE_END, default=name)
    elif not char:
        raise TruncatedCall
    else:
        raise UnofferedCall(f"text arguments of {name!r}") if name else MalformedCall("no JSON")
    source.mark()
    yield from calls.leave_out(source, MESSAGE_END, "Text behind the arguments")


LEAD = re.compile(r"[A-Za-z_][\w.\-]*(?:(<\|content_invoke_tool_[a-z])|<[|a-z_]*\Z|\Z)")
SEPARATOR = stops("<|sep|>")
SECTIONS = ("think", "response", "tools", "message", "call", "argument")
SECTION = re.compile(r"\w*")


def kimi(source: Source, calls: Calls) -> Reader[None]:
    """Read one of Kimi K3's sections, from `<|open|>` or `<|close|>` on."""
    if (yield from source.take(stops("<|open|>", "<|close|>"))) == "<|close|>":
        section = yield from source.collect_while(SECTION)
        if section not in SECTIONS:
            calls.dropped("text_left_out", f"The end of a section called {section!r} was left out")
        yield from calls.leave_out(source, stops("<|sep|>", "<|open|>"), f"Text in the end of the section {section!r}")
        yield from source.take(SEPARATOR)
        return
    section = (yield from source.collect(stops("<|sep|>", "<|open|>", "<|close|>"))).strip()
    yield from source.take(SEPARATOR)
    if section == "think":
        yield from source.until(stops("<|close|>", "<|open|>"), calls.think)
    elif section == "response":
        yield from source.until(stops("<|close|>", "<|open|>"), calls.say)
    elif section and section.split()[0] not in SECTIONS[:-1]:
        calls.dropped("text_left_out", f"A section called {section!r} was opened")
    elif section.startswith("call") and calls.toolbox:
        yield from kimi_call(source, calls, section)
        calls.is_over = True


def kimi_call(source: Source, calls: Calls, header: str) -> Reader[None]:
    """Read a call's arguments and its end."""
    attributes = {key: re.sub(r"\\(.)", r"\1", value) for key, value in ATTRIBUTE.findall(header)}
    calls.open(attributes.get("tool") or attributes.get("name", ""))
    calls.flush()
    calls.write("{")
    is_first = True
    while True:
        yield from source.skip_space()
        if not (yield from source.take(stops("<|open|>argument"))):
            break
        said = yield from source.collect(SEPARATOR)
        yield from source.take(SEPARATOR)
        given = {key: re.sub(r"\\(.)", r"\1", value) for key, value in ATTRIBUTE.findall(said)}
        key = given.get("key", "")
        types = frozenset({given["type"]}) if "type" in given else calls.toolbox.types(calls.name, key)
        calls.write_key(key, is_first=is_first)
        is_first = False
        yield from typed_value(source, calls, stops("<|close|>argument"), types, trims=False)
        yield from source.take(stops("<|close|>argument"))
        yield from source.take(SEPARATOR)
    if not (yield from source.peek()):
        raise TruncatedCall
    if not (yield from source.take(stops("<|close|>call"))):
        raise MalformedCall("text where an argument was expected")
    calls.write("}")
    calls.close()
    yield from source.take(SEPARATOR)


HARMONY = (
    Marker("<|start|>", message, keeps=True, channel=True), Marker("<|channel|>", message, keeps=True, channel=True),
)  # fmt: skip
TO = Marker("to=", recipient, keeps=True, at_start=True, channel=True)
ADDRESSED = (*HARMONY, TO)
GLIMMER = (*ADDRESSED, Marker("<|message|>", bare_message, at_start=True, channel=True))
MUSE = (
    Marker("<|start|>", muse_message, keeps=True, channel=True), Marker("<|channel|>", message, keeps=True, channel=True), TO,
    Marker("<|message|>", bare_thought, at_start=True, channel=True),
)  # fmt: skip
ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>")
HARMONY_CALLS = each(
    "<|channel|>commentary to=functions.",
    template("$NAME <|constrain|>json<|message|>$ARGS"),
    "<|call|>",
    between="<|start|>assistant",
)
INKLING_CALLS = each(
    "<|message_model|>",
    template('$NAME<|content_invoke_tool_json|>{"name":"$NAME","args":$ARGS}'),
    "<|end_message|>",
    between="",
)
ATEM_CALLS = each(
    "<|start|>assistant to=",
    elements(
        '$NAME<|message|><atem:function_calls>\n<atem:invoke name="$NAME">',
        "</atem:invoke>\n</atem:function_calls>",
        '<atem:parameter name="$KEY">',
        "</atem:parameter>",
    ),
    "<|eom|>",
    between="",
)
RFL_CALLS = each(
    "<|start|>assistant to=",
    elements(
        "$NAME<|channel|>analysis <|constrain|>xml<|message|>",
        "",
        '<rfl:parameter name="$KEY">',
        "</rfl:parameter>",
        around="\n",
        between="",
    ),
    "<|end|>",
    between="",
)
K3_CALLS = wrapped(
    "<|open|>tools<|sep|>",
    elements(
        '<|open|>call tool="$NAME" index="$AT"<|sep|>',
        "<|close|>call<|sep|>",
        '<|open|>argument key="$KEY" type="$TYPE"<|sep|>',
        "<|close|>argument<|sep|>",
        between="",
    ),
    "<|close|>tools<|sep|>",
)

DIALECTS = (
    Dialect(
        name="gpt-oss-harmony", writes=HARMONY_CALLS,
        models="gpt-oss-20b, gpt-oss-120b", markers=ADDRESSED, drops=ENDS,
        architectures=("gpt-oss", "gpt_oss"),
        example='<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
    ),
    Dialect(
        name="muse-glimmer", writes=ATEM_CALLS,
        models="Muse Glimmer", markers=GLIMMER, drops=ENDS,
        example=(
            '<|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n'
            '<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
        ),
    ),
    Dialect(
        name="muse", writes=ATEM_CALLS,
        models="Muse, MuseSpark", markers=MUSE, drops=ENDS,
        example=(
            '<|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n'
            '<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
        ),
    ),
    Dialect(
        name="beam", writes=RFL_CALLS,
        models="Beam", markers=HARMONY, drops=ENDS,
        example=(
            "<|start|>assistant to=f<|channel|>analysis <|constrain|>xml<|message|>"
            '<rfl:parameter name="a">\n1\n</rfl:parameter><|end|>'
        ),
    ),
    Dialect(
        name="inkling", writes=INKLING_CALLS,
        models="Inkling", architectures=("inkling",),
        markers=tuple(
            Marker(text, inkling, keeps=True, channel=True)
            for text in ("<|message_model|>", "<|content_text|>", "<|content_thinking|>", "<|content_invoke_tool_json|>")
        ),
        own=tuple(Marker(first, named, keeps=True, at_start=True, channel=True) for first in f"{ascii_letters}_"),
        drops=("<|end_message|>", "<|content_model_end_sampling|>", "<|content_tool_error|>"),
        example='<|message_model|>f<|content_invoke_tool_json|>{"name":"f","args":{"a":1}}<|end_message|>',
    ),
    Dialect(
        name="kimi-k3", writes=K3_CALLS,
        models="Kimi-K3",
        markers=(
            Marker("<|open|>", kimi, keeps=True, channel=True), Marker("<|close|>", kimi, keeps=True, channel=True),
        ),
        example=(
            '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="a" type="number"<|sep|>1'
            "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
        ),
    ),
)  # fmt: skip
