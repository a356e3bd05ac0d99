"""Calls as JSON: an object or an array of objects, or arguments after a name.

Program text may also be the only argument. Each reader begins at the first character of its text and ends directly after the
last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from json.encoder import encode_basestring

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.argument_values import decode_arguments
from lmdeck._parsing.literals import LiteralReader, escaped
from lmdeck._parsing.members import Block, extra_closers
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import (
    NON_SPACE,
    MalformedCall,
    NotACall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
    run_whole,
)

NAME_KEYS = frozenset({"name", "tool_name", "function_name", "tool", "function", "recipient_name", "action"})
ARGUMENT_KEYS = frozenset(
    {"arguments", "parameters", "args", "input", "tool_input", "kwargs", "action_input", "params"}
)
OTHER_KEYS = frozenset({"id", "tool_call_id", "type", "index", "call_id", "thought", "reasoning", "thoughts"})
KEYS_BESIDE_NAME = frozenset({"type", "id"})
"""Keys that may stand before the name of a call without markers."""
CALLS_KEYS = frozenset({"tool_calls", "tool_call", "function_call", "function_calls"})
"""Keys of an object around a call or an array of calls, as some prompt templates ask for (LM Studio bug tracker #1071)."""
NO_ARGUMENTS = ("", "null", "None")
CODE_TOOLS = ("python", "ipython", "code_interpreter")
WORD = late_pattern(r"[\w.\-/:$]*")


def _ignore(_: str) -> None:
    """Discard text."""


def json_text(source: Source, note: Callable[[str], object], *, is_key: bool = False) -> Reader[str]:
    """Read a JSON string, or a bare word, as text."""
    char = yield from source.peek()
    if char not in ('"', "'"):
        word = yield from source.collect_while(WORD)
        if not word:
            if not char:
                raise TruncatedCall
            raise MalformedCall(f"expected a string, found {char!r}")
        return word
    parts: list[str] = []
    yield from LiteralReader(source, parts.append, note).string(is_key=is_key)
    text = decode_arguments("".join(parts))
    return text if isinstance(text, str) else ""


def json_arguments(
    source: Source, put: Callable[[str], object], sink: Sink, ends: Stops, *, enclosing: str = ""
) -> Reader[None]:
    """Read arguments: an object, an object in a string, or nothing.

    `enclosing` contains the closing brackets of the text around them.
    """
    char = yield from source.skip_space()
    if char == "{":
        yield from LiteralReader(source, put, sink.note, ends=ends, enclosing=enclosing).read()
        if not enclosing:
            yield from extra_closers(source, sink)
        return
    parts: list[str] = []
    yield from LiteralReader(source, parts.append, sink.note, ends=ends).read()
    written = "".join(parts).strip()
    value = decode_arguments(written)
    text = value.strip() if isinstance(value, str) else written
    if isinstance(value, str) and text[:1] == "{":
        try:
            run_whole(LiteralReader(Source(text, closed=True), put, sink.note).read())
        except TruncatedCall:
            raise MalformedCall("the arguments inside the string are cut off") from None
    elif text in NO_ARGUMENTS or value == []:
        put("{}")
    else:
        raise MalformedCall("the arguments are not an object")


def code_arguments(source: Source, sink: Sink, ends: Stops) -> Reader[None]:
    """Read program text as the one argument of a tool that runs code."""
    key = next(iter(sink.tools.properties(sink.name)), "code")
    sink.write(f'{{{encode_basestring(key)}: "')
    yield from source.until(ends, lambda text: sink.write(escaped(text)))
    sink.write('"}')


def json_call(source: Source, sink: Sink, ends: Stops, *, strictly: bool = False, default: str = "") -> Reader[None]:
    """Read one call as a JSON object, and superfluous closing brackets after it.

    If the call is refused, the text after it stays unread.
    """
    block = Block(source, sink)
    yield from block.member(json_member(source, sink, ends, strictly=strictly, default=default), ends)
    block.end()
    yield from extra_closers(source, sink)


def json_objects(source: Source, sink: Sink, ends: Stops, *, strictly: bool = False) -> Reader[None]:
    """Read one call as a JSON object, or several with separators between them, each separately."""
    block = Block(source, sink)
    while True:
        yield from block.member(json_member(source, sink, ends, strictly=strictly), ends)
        if block.has_calls:
            yield from extra_closers(source, sink)
        if not (yield from _next_object(source)):
            break
    block.end()


def _next_object(source: Source) -> Reader[bool]:
    """Go to the next object, after separators; return whether there is one."""
    while True:
        found = NON_SPACE.search(source.text, source.at)
        if found and found.group() in ";,":
            source.at = found.end()
        elif found:
            if found.group() == "{":
                source.at = found.start()
            return found.group() == "{"
        elif source.closed:
            return False
        else:
            yield


def json_member(  # noqa: C901 - one grammar, read top down
    source: Source, sink: Sink, ends: Stops, *, strictly: bool = False, default: str = "", is_inner: bool = False
) -> Reader[None]:
    """Read one `{"name": …, "arguments": {…}}`, its keys in any order.

    The keys may have any of their names, and the call may be inside another object. With `strictly`, only a call of an offered
    tool is read, and other text raises `NotACall` as soon as it differs from one.
    """
    source.at += 1
    early: list[str] = []
    beside: dict[str, str] = {}
    kind = ""
    has_arguments = False
    is_first = True
    while True:
        char = yield from source.skip_space()
        if char == "}":
            source.at += 1
            break
        if char == "," and not is_first:
            source.at += 1
            continue
        if not char:
            raise TruncatedCall
        if char == "{" and is_first and not strictly:
            sink.note("a doubled opening bracket")
            source.at += 1
            continue
        if not is_first and (yield from source.ahead(ends)):
            sink.note("a missing closing bracket")
            break
        key = yield from json_text(source, sink.note, is_key=True)
        char = yield from source.skip_space()
        if char != ":":
            if not char:
                raise TruncatedCall
            if char not in "=\"'":
                raise (NotACall if strictly and is_first else MalformedCall)(f"expected a colon, found {char!r}")
            sink.note("an equals sign instead of a colon")
        source.at += char in ":="
        char = yield from source.skip_space()
        if strictly and not sink.is_open and key not in NAME_KEYS | KEYS_BESIDE_NAME | CALLS_KEYS:
            raise NotACall
        if key in NAME_KEYS | CALLS_KEYS and char == "{" and not sink.is_open and not is_inner:
            yield from json_member(source, sink, ends, strictly=strictly, is_inner=True)
            yield from _rest_of_object(source, ends)
            return
        if key in CALLS_KEYS and char == "[" and not sink.is_open and not is_inner:
            yield from json_calls(source, sink, ends, strictly=strictly, is_inner=True)
            yield from _rest_of_object(source, ends)
            return
        if key in NAME_KEYS and not sink.is_open:
            if strictly and char not in "\"'":
                raise NotACall
            name = yield from json_text(source, sink.note)
            sink.open(name)
            for fragment in early:
                sink.write(fragment)
            sink.flush()
        elif key in ARGUMENT_KEYS and not has_arguments:
            has_arguments = True
            put = sink.write if sink.is_open else early.append
            yield from json_arguments(source, put, sink, ends, enclosing="}")
        elif is_first and char in ("{", '"', "n") and sink.tools.resolve(key) and key not in OTHER_KEYS:
            sink.open(key)
            has_arguments = True
            yield from json_arguments(source, sink.write, sink, ends, enclosing="}")
        elif strictly and key not in OTHER_KEYS:
            raise NotACall
        else:
            value: list[str] = []
            yield from LiteralReader(source, value.append, _ignore, ends=ends).read()
            if key == "type" and sink.tools.resolve(str(decode_arguments("".join(value)))) is not None:
                kind = str(decode_arguments("".join(value)))
            elif key not in OTHER_KEYS:
                beside[key] = "".join(value)
        is_first = False
    if not sink.is_open:
        if kind and not default:
            sink.note("the name in the key `type`")
        default = default or kind
        if not default:
            raise NotACall if strictly else MalformedCall("it has no name")
        sink.open(default)
        for fragment in early:
            sink.write(fragment)
    if strictly and not has_arguments:
        raise NotACall
    if not has_arguments and beside:
        _use_as_arguments(beside, sink)
        beside.clear()
    sink.close()
    for name, written in beside.items():
        sink.report("text_left_out", f"{name!r} beside a call was left out: {written}")


def _use_as_arguments(beside: dict[str, str], sink: Sink) -> None:
    """Write the values beside the name as arguments, because there are no others.

    Raises:
        MalformedCall: The tool does not have all of these parameters.
    """
    if not beside.keys() <= sink.tools.properties(sink.name).keys():
        raise MalformedCall(f"it has no arguments but other keys: {', '.join(beside)}")
    sink.note("arguments beside the name")
    sink.write("{" + ", ".join(f"{encode_basestring(key)}: {value}" for key, value in beside.items()) + "}")


def _rest_of_object(source: Source, ends: Stops) -> Reader[None]:
    """Read the rest of an object after its nested call, as far as it can be read."""
    with suppress(MalformedCall):
        yield from _other_members(source, ends)


def _other_members(source: Source, ends: Stops) -> Reader[None]:
    while True:
        char = yield from source.skip_space()
        if not char or (yield from source.ahead(ends)):
            return
        if char == "}":
            source.at += 1
            return
        if char == ",":
            source.at += 1
        elif char == ":":
            source.at += 1
            yield from source.skip_space()
            yield from LiteralReader(source, _ignore, _ignore, ends=ends).read()
        else:
            yield from json_text(source, _ignore)


def json_calls(
    source: Source, sink: Sink, ends: Stops, *, strictly: bool = False, is_inner: bool = False
) -> Reader[None]:
    """Read `[{…}, {…}]`, each member separately.

    Separators and the closing bracket may be missing. An inner array is in an object, whose closing bracket stays unread.
    """
    source.at += 1
    block = Block(source, sink)
    while True:
        char = yield from source.skip_space()
        if char == "{":
            yield from block.member(json_member(source, sink, ends, strictly=strictly), ends)
        elif char == ",":
            source.at += 1
        elif char == "]":
            source.at += 1
            if block.has_calls and not is_inner:
                yield from extra_closers(source, sink)
            break
        elif char in ("}", ")") and block.has_calls:
            yield from extra_closers(source, sink, "]")
        elif not char and not block.has_calls:
            raise TruncatedCall
        elif not char or (yield from source.ahead(ends)):
            break
        elif block.has_calls:
            value: list[str] = []
            yield from LiteralReader(source, value.append, _ignore, ends=ends).read()
            sink.report("tool_call_unparsed", f"A value among the calls is not a call: {''.join(value)}")
        else:
            raise MalformedCall(f"expected a call, found {char!r}")
    block.end()
