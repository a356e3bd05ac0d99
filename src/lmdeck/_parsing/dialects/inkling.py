"""Inkling: messages, each of one kind.

Their form is `<|message_model|>HEADER<|content_text|>…<|end_message|>`.

Sources: Inkling's chat template; vLLM, SGLang.
"""

from __future__ import annotations

from string import ascii_letters

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.dialects.dialect import Dialect, Marker
from lmdeck._parsing.json_calls import json_call
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import MalformedCall, NotACall, Reader, Source, TruncatedCall, UnofferedCall, stops
from lmdeck._parsing.writers import each, template

CONTENT_KINDS = stops(
    "<|content_text|>", "<|content_thinking|>", "<|content_invoke_tool_json|>", "<|content_invoke_tool_text|>",
    "<|content_audio_input|>", "<|end_message|>", "<|message_model|>", "<|message_user|>",
)  # fmt: skip
MESSAGE_END = stops(
    "<|end_message|>", "<|message_model|>", "<|message_user|>", "<|content_text|>", "<|content_thinking|>",
    "<|content_model_end_sampling|>", "<|content_invoke_tool_json|>", "<|content_invoke_tool_text|>",
)  # fmt: skip
TURNS = ("<|message_model|>", "<|message_user|>")
WHOLE_HEADER = late_pattern(r"<\|message_[a-z]+\|>(?:[^<>\n]{0,200}<\|content_|<\|(?:end_message|message_))")
PARTIAL_HEADER = late_pattern(r"<\|message_[a-z]+\|>[^<>\n]{0,200}(?:<\|?[a-z_]*)?\Z")
HEADER_LIMIT = 400
LEAD = late_pattern(r"[A-Za-z_][\w.\-]*(?:(<\|content_invoke_tool_[a-z])|<[|a-z_]*\Z|\Z)")


def inkling(source: Source, sink: Sink) -> Reader[None]:
    """Read one of Inkling's messages, from its first token on."""
    yield from source.take(stops("<|message_model|>"))
    begin = source.place
    header: list[str] = []
    kind = yield from source.until(CONTENT_KINDS, header.append)
    if not kind:
        raise TruncatedCall
    header_text = "".join(header).strip()
    if header_text and "invoke_tool" not in kind:
        span = (begin, source.place)
        sink.report("text_left_out", f"{header_text!r} in the header of a message was left out", header_text, span)
    source.at += len(kind) if kind not in ("<|message_model|>", "<|message_user|>") else 0
    if kind == "<|content_text|>":
        while (yield from sink.message(MESSAGE_END)) in TURNS and not (yield from _begins_message(source)):
            sink.emit_content((yield from source.take(MESSAGE_END)))
    elif kind == "<|content_thinking|>":
        yield from sink.reasoning_body(MESSAGE_END)
    elif "invoke_tool" in kind:
        yield from inkling_call(source, sink, header_text)
    yield from source.take(stops("<|end_message|>"))


def _begins_message(source: Source) -> Reader[bool]:
    """Whether the rest of a header follows a token, which is then more than a mention of it."""
    while True:
        if WHOLE_HEADER.match(source.text, source.at):
            return True
        if source.closed or not PARTIAL_HEADER.match(source.text, source.at):
            return source.closed and PARTIAL_HEADER.match(source.text, source.at) is not None
        yield


def named(source: Source, sink: Sink) -> Reader[None]:
    """Read a message that begins with the tool's name: the template wrote its first token."""
    while True:
        found = LEAD.match(source.text, source.at, source.at + HEADER_LIMIT)
        if found is None:
            raise NotACall
        if found.group(1) is not None or source.closed or found.end() - source.at == HEADER_LIMIT:
            break
        yield
    if not (found.group(1) or "").startswith("<|content_invoke_tool_"):
        raise NotACall
    yield from inkling(source, sink)


def inkling_call(source: Source, sink: Sink, name: str) -> Reader[None]:
    """Read `{"name": …, "args": …}`; the header may name the tool as well."""
    if not sink.tools:
        sink.emit_content(source.marked())
        sink.emit_content((yield from source.take(stops((yield from source.until(MESSAGE_END, sink.emit_content))))))
        return
    char = yield from source.skip_space()
    if char and char != "{" and not name:
        yield from sink.message(MESSAGE_END)
        return
    if char == "{":
        yield from json_call(source, sink, MESSAGE_END, default=name)
    elif not char:
        raise TruncatedCall
    else:
        raise UnofferedCall(f"the arguments of {name!r} are not JSON") if name else MalformedCall("it is not JSON")
    source.mark()
    yield from sink.discard_until(source, MESSAGE_END, "Text after the arguments")


INKLING_CALLS = each(
    "<|message_model|>",
    template('$NAME<|content_invoke_tool_json|>{"name":"$NAME","args":$ARGS}'),
    "<|end_message|>",
    between="",
)

DIALECTS = (
    Dialect(
        name="inkling", writes=INKLING_CALLS,
        content_frame=("<|message_model|><|content_text|>", "<|end_message|>"),
        thought_frame=("<|message_model|><|content_thinking|>", "<|end_message|>"),
        models="Inkling", architectures=("inkling",),
        markers=tuple(
            Marker(text, inkling, keeps=True, channel=True)
            for text in (
                "<|message_model|>", "<|content_text|>", "<|content_thinking|>", "<|content_invoke_tool_json|>",
                "<|content_invoke_tool_text|>",
            )
        ),
        only_if_known=tuple(Marker(first, named, keeps=True, at_start=True, channel=True) for first in f"{ascii_letters}_"),
        drops=("<|end_message|>", "<|content_model_end_sampling|>", "<|content_tool_error|>"),
        example='<|message_model|>f<|content_invoke_tool_json|>{"name":"f","args":{"a":1}}<|end_message|>',
    ),
)  # fmt: skip
