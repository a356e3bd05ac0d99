"""Harmony: messages whose header has a channel and a recipient.

The header decides whether the message is reasoning, content or a call.
`<|start|>assistant<|channel|>analysis<|message|>…<|end|>` is gpt-oss's; Beam puts XML into it, Muse addresses messages with
`to=self`, `to=user` or a tool's name.

Sources: OpenAI's Harmony guide; vLLM, SGLang, llama.cpp, Ollama.
"""

from __future__ import annotations

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.json_calls import json_arguments
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, Stops, TruncatedCall, stops
from lmdeck._parsing.writers import each, elements, template
from lmdeck._parsing.xml_calls import Elements, elements_calls, parameters

RECIPIENT = late_pattern(r"\bto=([^\s<]+)|<\|start\|>(functions\.[^\s<]+)(?![^<]*to=)")
CHANNEL = late_pattern(r"<\|channel\|>\s*(\w+)")
HEADER_END = stops("<|message|>", "<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>")
ROLES = ("assistant", "user", "system", "developer", "tool", "functions")
SPACES = ("", " ")
"""What stands between a token and the word after it; LLM-jp 4.1 writes a space."""
MESSAGE_ENDS = stops(
    "<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>",
    *(f"<|start|>{space}{role}" for role in ROLES for space in SPACES),
    *(f"<|channel|>{space}{kind}" for kind in ("analysis", "commentary", "final") for space in SPACES),
)  # fmt: skip
ADDRESSED_ENDS = stops("<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>")
ADDRESS = late_pattern(r"to=[\w.\-]*(?:(<\|(?:message|channel)\|>)|<[|a-z]*\Z|\Z)")
STRAY = stops("commentary<|", "analysis<|", "final<|", "assistant<|")
BUILTIN = ("browser", "python", "container")
ATEM = Elements(
    function=("<atem:invoke name=",), function_end=("</atem:invoke>",), parameter=("<atem:parameter name=",),
    parameter_end=("</atem:parameter>",), ends=("</atem:function_calls>", "<|eom|>", "<|eot|>"), trims=False,
)  # fmt: skip
ATEM_BEGINS = ("<atem:function_calls>", *ATEM.function)
RFL = Elements(
    function=("<rfl:invoke name=",), function_end=("<|end|>", "<|call|>", "</rfl:invoke>"),
    parameter=("<rfl:parameter name=",), parameter_end=("</rfl:parameter>",), ends=("<|start|>",),
    ends_with_text=True,
)  # fmt: skip
BODY_BEGINNINGS = stops(*MESSAGE_ENDS.literals, *ATEM.function, "<atem:function_calls>", *RFL.parameter)
GLUED = ("json", "code", "xml")
HEADER_LIMIT = 400
KNOWN_HEADER = late_pattern(
    r"<\|start\|>\s*(?:assistant|user|system|developer|tool|functions)?(?:\.[\w.\-]+)?"
    r"|<\|channel\|>\s*(?:analysis|commentary|final)?|<\|constrain\|>\s*(?i:json|xml)?"
)
WHOLE_HEADER = late_pattern(
    r"(?:<\|start\|> ?assistant)?\s*(?:to=[^\s<]+\s*)?<\|channel\|>\s*(?:analysis|commentary|final)\b\s*(?:to=[^\s<]+\s*)?"
    r"(?:<\|constrain\|>\s*(?i:json|xml)\b\s*)?"
)
HEADER = late_pattern(
    r"(?:<\|start\|> ?[\w.\-]*)?\s*(?:to=|to?\Z|<\|channel\|>\s*\w|<\|channel\|>\Z|<(?:\|[a-z]*\|?)?\Z|\Z)"
)


def header_of(source: Source, sink: Sink) -> Reader[str]:
    """Return a message's header, read up to its text; `""` if the message has no text.

    Raises:
        NotACall: It is not a header, or is prose that quotes the start of one.
        TruncatedCall: The text ended inside it.
    """
    begin = source.place
    header, end = yield from _up_to_text(source)
    if end != "<|message|>" and (size := _begin_of_text(header)):
        source.unread(header[size:])
        if end or sink.is_at_start or header.startswith("<|start|>"):
            sink.report("repaired", "The header of a message has no end", header[:size], (begin, source.place))
            return header[:size]
        source.unread(header[:size])
        raise NotACall
    if (end != "<|message|>" and header.startswith("to=")) or not HEADER.match(header):
        raise NotACall
    if not end:
        raise TruncatedCall
    source.at += len(end)
    if stray := KNOWN_HEADER.sub("", RECIPIENT.sub("", header, count=1)).strip():
        detail = f"{stray!r} in the header of a message was left out"
        sink.report("text_left_out", detail, stray, (begin, source.place))
    if end == "<|message|>":
        return header
    if recipient := RECIPIENT.search(header):
        detail = f"A message to {recipient.group(1)!r} had no text"
        sink.report("text_left_out", detail, header, (begin, source.place))
    return ""


def _up_to_text(source: Source) -> Reader[tuple[str, str]]:
    """Return the text up to a token, and the token, which stays unread.

    If no token follows within the limit, return the text only if it begins with a whole header.
    """
    try:
        return (yield from source.within(HEADER_END, HEADER_LIMIT))
    except NotACall:
        header = source.text[source.at : source.at + HEADER_LIMIT]
        if not _begin_of_text(header):
            raise
        source.at += len(header)
        return header, ""


def _begin_of_text(header: str) -> int:
    """Return the length of a whole header that text follows without a token between; else 0."""
    found = WHOLE_HEADER.match(header)
    text = header[found.end() :] if found else ""
    return found.end() if found and text[:1] not in ("", "<") and not "to=".startswith(text) else 0


def message(source: Source, sink: Sink, default: str = "user") -> Reader[None]:
    """Read one message from its first token on.

    Without a channel and a recipient, it is for `default`.
    """
    header = yield from header_of(source, sink)
    if not header:
        return
    name, kind, is_addressed = address_of(header, default)
    ends = ADDRESSED_ENDS if is_addressed and name == "user" and not kind else MESSAGE_ENDS
    if name == "self" or (kind == "analysis" and not name):
        if is_addressed:
            sink.separate_reasoning()
        yield from sink.reasoning_body(ends)
    elif not name or name in ("user", "commentary"):
        sink.separate_message(kind)
        yield from to_user(source, sink, ends)
    elif name == "developer":
        yield from sink.discard_until(source, ends, "A message to the developer", source.marked_span()[0])
    elif name == "assistant":
        yield from to_itself(source, sink)
    elif sink.tools:
        yield from addressed(source, sink, name)
    else:
        sink.emit_content(source.marked())
        sink.emit_content((yield from source.take(stops((yield from source.until(ends, sink.emit_content))))))
        return
    yield from end_of_message(source)


def address_of(header: str, default: str) -> tuple[str, str, bool]:
    """Return a message's recipient, its last channel, and whether it names a recipient.

    The recipient `""` means that the channel decides.
    """
    recipient, channels = RECIPIENT.search(header), CHANNEL.findall(header)
    kind = channels[-1] if channels else ""
    if recipient is None:
        return "" if kind or "assistant" not in header else default, kind, False
    name = recipient.group(1) or recipient.group(2)
    return "" if name == "assistant" and kind in ("analysis", "final") else name, kind, True


def to_user(source: Source, sink: Sink, ends: Stops) -> Reader[None]:
    """Read the body of a message to the user; some models begin it with a block of calls."""
    if sink.tools and (yield from source.ahead(stops(*ATEM_BEGINS))):
        yield from atem_calls(source, sink)
    yield from sink.message(ends)


def to_itself(source: Source, sink: Sink) -> Reader[None]:
    """Read a message to `assistant`, which is not a tool.

    Unless it ends like a call, it is for the user.
    """
    begin, parts = source.place, list[str]()
    end = yield from source.until(MESSAGE_ENDS, parts.append)
    text = "".join(parts)
    if end == "<|call|>":
        sink.report("text_left_out", f"A call of `assistant` was left out: {text}", text, (begin, source.place))
    else:
        sink.emit_content(text)


def muse_message(source: Source, sink: Sink) -> Reader[None]:
    """Read one of Muse's messages: without a recipient it is reasoning."""
    yield from message(source, sink, "self")


def bare_message(source: Source, sink: Sink) -> Reader[None]:
    """Read a message to the user whose header the template wrote."""
    yield from sink.message(MESSAGE_ENDS)
    yield from end_of_message(source)


def bare_thought(source: Source, sink: Sink) -> Reader[None]:
    """Read a reasoning message whose header the template wrote.

    Raises:
        NotACall: A header follows: two tokens are swapped.
    """
    if (yield from source.ahead(stops("assistant to="))):
        raise NotACall
    yield from sink.reasoning_body(MESSAGE_ENDS)
    yield from end_of_message(source)


def recipient(source: Source, sink: Sink) -> Reader[None]:
    """Read a message that begins with its recipient, `to=NAME<|message|>`."""
    begin = source.text[source.at : source.at + 3]
    size = 3
    while True:
        found = ADDRESS.match(source.text, source.at, source.at + HEADER_LIMIT)
        if found is None:
            raise NotACall
        size = found.end() - source.at
        if found.group(1) is not None or source.closed or size == HEADER_LIMIT:
            break
        yield
    if found.group(1) is None or not begin:
        raise NotACall
    yield from message(source, sink)


def end_of_message(source: Source) -> Reader[None]:
    """Read the token that ends a message, and a stray channel name after it.

    gpt-oss writes such names.
    """
    if (yield from source.take(stops("<|end|>", "<|call|>", "<|return|>", "<|eom|>", "<|eot|>"))):
        source.mark()
        if (yield from source.take(STRAY)):
            source.at -= 2


def _without_type(name: str, sink: Sink) -> str:
    """Return a recipient without the type of the body that directly follows it.

    Source: llama.cpp #15158.
    """
    for word in GLUED:
        if sink.tools.resolve(name) is None and sink.tools.resolve(name.removesuffix(word)) is not None:
            sink.note(f"the recipient was written as {name!r}")
            return name.removesuffix(word)
    return name


def addressed(source: Source, sink: Sink, name: str) -> Reader[None]:
    """Read a message to a tool."""
    name = _without_type(name, sink)
    bare = name.removeprefix("functions.")
    if sink.tools.resolve(name) is None and bare.split(".")[0] in BUILTIN:
        what = f"A message to the built-in tool {name!r}"
        yield from sink.discard_until(source, MESSAGE_ENDS, what, source.marked_span()[0])
        return
    char = yield from source.skip_space()
    if (yield from source.ahead(stops(*ATEM_BEGINS))):
        yield from atem_calls(source, sink)
    elif (yield from source.ahead(stops(*RFL.parameter))):
        sink.open(name)
        sink.flush()
        yield from parameters(source, sink, RFL)
        sink.close()
    else:
        sink.open(name)
        sink.flush()
        if not char:
            raise TruncatedCall
        if char == "{":
            yield from json_arguments(source, sink.write, sink, MESSAGE_ENDS)
        elif not (yield from source.ahead(MESSAGE_ENDS)):
            if (yield from source.ends_inside(BODY_BEGINNINGS, least=1)):
                raise TruncatedCall
            raise MalformedCall("the arguments are not an object")
        sink.close()
    source.mark()
    yield from sink.discard_until(source, MESSAGE_ENDS, "Text after the arguments")


def atem_calls(source: Source, sink: Sink) -> Reader[None]:
    """Read a block of `<atem:invoke>` elements, or one without its block."""
    yield from source.take(stops(ATEM_BEGINS[0]))
    if not (yield from source.skip_space()) or (yield from source.ends_inside(stops(*ATEM.function), least=1)):
        raise TruncatedCall
    yield from elements_calls(source, sink, ATEM)
    yield from source.skip_space()
    yield from source.take(stops("</atem:function_calls>"))


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
FINAL = ("<|start|>assistant<|channel|>final<|message|>", "<|end|>")
ANALYSIS = ("<|start|>assistant<|channel|>analysis<|message|>", "<|end|>")
TO_USER = ("<|start|>assistant to=user<|message|>", "<|eom|>")
TO_SELF = ("<|start|>assistant to=self<|message|>", "<|eom|>")
HARMONY_CALLS = each(
    "<|channel|>commentary to=functions.",
    template("$NAME <|constrain|>json<|message|>$ARGS"),
    "<|call|>",
    between="<|start|>assistant",
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

DIALECTS = (
    Dialect(
        name="gpt-oss-harmony", writes=HARMONY_CALLS, content_frame=FINAL, thought_frame=ANALYSIS,
        models="gpt-oss-20b, gpt-oss-120b", markers=ADDRESSED, drops=ENDS,
        architectures=("gpt-oss", "gpt_oss"),
        example='<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
    ),
    Dialect(
        name="muse-glimmer", writes=ATEM_CALLS, content_frame=TO_USER, thought_frame=TO_SELF,
        models="Muse Glimmer", markers=GLIMMER, drops=ENDS,
        example=(
            '<|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n'
            '<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
        ),
    ),
    Dialect(
        name="muse", writes=ATEM_CALLS, content_frame=TO_USER, thought_frame=TO_SELF,
        models="Muse, MuseSpark", markers=MUSE, drops=ENDS,
        example=(
            '<|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name="f">\n'
            '<atem:parameter name="a">1</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|>'
        ),
    ),
    Dialect(
        name="beam", writes=RFL_CALLS, content_frame=FINAL, thought_frame=ANALYSIS,
        models="Beam", markers=HARMONY, drops=ENDS,
        example=(
            "<|start|>assistant to=f<|channel|>analysis <|constrain|>xml<|message|>"
            '<rfl:parameter name="a">\n1\n</rfl:parameter><|end|>'
        ),
    ),
)  # fmt: skip
