"""Calls as JSON: an object or an array of them, arguments behind a name, and program text as the one argument.

Each reader begins at its first character and ends right behind its last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json.encoder import encode_basestring

from lmdeck._parsing.literals import LiteralReader, escaped
from lmdeck._parsing.members import Block, extra_closers
from lmdeck._parsing.sink import Calls, decode_arguments
from lmdeck._parsing.source import (
    NON_SPACE,
    MalformedCall,
    NotACall,
    Reader,
    Source,
    Stops,
    TruncatedCall,
)

__all__ = [
    "ARGUMENT_KEYS",
    "CODE_TOOLS",
    "NAME_KEYS",
    "code_arguments",
    "json_arguments",
    "json_call",
    "json_calls",
    "json_member",
    "json_objects",
    "json_text",
]

NAME_KEYS = frozenset({"name", "tool_name", "function_name", "tool", "function", "recipient_name", "action"})
ARGUMENT_KEYS = frozenset(
    {"arguments", "parameters", "args", "input", "tool_input", "kwargs", "action_input", "params"}
)
OTHER_KEYS = frozenset({"id", "tool_call_id", "type", "index", "call_id", "thought", "reasoning", "thoughts"})
CODE_TOOLS = ("python", "ipython", "code_interpreter")
WORD = re.compile(r"[\w.\-/:$]*")


def _ignore(_: str) -> None:
    """Drop text."""


def json_text(source: Source, note: Callable[[str], object], *, is_key: bool = False) -> Reader[str]:
    """Read a JSON string, or a bare word, as text."""
    char = yield from source.peek()
    if char not in ('"', "'"):
        word = yield from source.collect_while(WORD)
        if not word:
            if not char:
                raise TruncatedCall
            raise MalformedCall(f"{char!r} stands where a string was expected")
        return word
    parts: list[str] = []
    yield from LiteralReader(source, parts.append, note).string(is_key=is_key)
    text = decode_arguments("".join(parts))
    return text if isinstance(text, str) else ""


def json_arguments(
    source: Source, put: Callable[[str], object], calls: Calls, ends: Stops, *, enclosing: str = ""
) -> Reader[None]:
    """Read arguments: an object, an object inside a string, or nothing; `enclosing` closes what stands around them."""
    char = yield from source.skip_space()
    if char == "{":
        yield from LiteralReader(source, put, calls.note, ends=ends, enclosing=enclosing).read()
        if not enclosing:
            yield from extra_closers(source, calls)
        return
    parts: list[str] = []
    yield from LiteralReader(source, parts.append, calls.note, ends=ends).read()
    value = decode_arguments("".join(parts))
    if isinstance(value, str) and value.strip() not in ("", "null", "None"):
        inner = Source(value.strip(), closed=True)
        if value.strip()[:1] != "{":
            raise MalformedCall("the arguments are no object")
        try:
            for _ in LiteralReader(inner, put, calls.note).read():
                pass
        except TruncatedCall:
            raise MalformedCall("the arguments inside the string are cut off") from None
    elif value in (None, [], ""):
        put("{}")
    elif not isinstance(value, str):
        raise MalformedCall("the arguments are no object")
    else:
        put("{}")


def code_arguments(source: Source, calls: Calls, ends: Stops) -> Reader[None]:
    """Read program text as the one argument of a tool that runs code."""
    key = next(iter(calls.toolbox.properties(calls.name)), "code")
    calls.write(f'{{{encode_basestring(key)}: "')
    yield from source.until(ends, lambda text: calls.write(escaped(text)))
    calls.write('"}')


def json_call(source: Source, calls: Calls, ends: Stops, *, strictly: bool = False, default: str = "") -> Reader[None]:
    """Read one call as a JSON object, and closing brackets too many behind it; of a refused one, no more than its text."""
    block = Block(source, calls)
    yield from block.member(json_member(source, calls, ends, strictly=strictly, default=default), ends)
    block.end()
    yield from extra_closers(source, calls)


def json_objects(source: Source, calls: Calls, ends: Stops, *, strictly: bool = False) -> Reader[None]:
    """Read one call as a JSON object, or several with separators between them, each by itself."""
    block = Block(source, calls)
    while True:
        yield from block.member(json_member(source, calls, ends, strictly=strictly), ends)
        if block.has_calls:
            yield from extra_closers(source, calls)
        if not (yield from _next_object(source)):
            break
    block.end()


def _next_object(source: Source) -> Reader[bool]:
    """Go to the next object, behind separators; a separator that ends the line is read alone."""
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
    source: Source, calls: Calls, ends: Stops, *, strictly: bool = False, default: str = "", is_inner: bool = False
) -> Reader[None]:
    """Read one `{"name": …, "arguments": {…}}`, its keys in any order and under any of their names, or one in another object.

    With `strictly` nothing but a call of an offered tool is taken, and other text is `NotACall` as soon as that is known.
    """
    source.at += 1
    early: list[str] = []
    beside: list[str] = []
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
            calls.note("a doubled opening bracket")
            source.at += 1
            continue
        if not is_first and (yield from source.ahead(ends)):
            calls.note("a missing closing bracket")
            break
        key = yield from json_text(source, calls.note, is_key=True)
        char = yield from source.skip_space()
        if char != ":":
            if not char:
                raise TruncatedCall
            if char not in "=\"'":
                raise (NotACall if strictly and is_first else MalformedCall)(
                    f"{char!r} stands where a colon was expected"
                )
            calls.note("an equals sign for a colon")
        source.at += char in ":="
        char = yield from source.skip_space()
        if strictly and not calls.is_open and key not in NAME_KEYS and key not in ("type", "id"):
            raise NotACall
        if key in NAME_KEYS and char == "{" and not calls.is_open and not is_inner:
            yield from json_member(source, calls, ends, strictly=strictly, is_inner=True)
            yield from _rest_of_object(source, ends)
            return
        if key in NAME_KEYS and not calls.is_open:
            if strictly and char not in "\"'":
                raise NotACall
            name = yield from json_text(source, calls.note)
            calls.open(name)
            for fragment in early:
                calls.write(fragment)
            calls.flush()
        elif key in ARGUMENT_KEYS and not has_arguments:
            has_arguments = True
            put = calls.write if calls.is_open else early.append
            yield from json_arguments(source, put, calls, ends, enclosing="}")
        elif is_first and char in ("{", '"', "n") and calls.toolbox.resolve(key) and key not in OTHER_KEYS:
            calls.open(key)
            has_arguments = True
            yield from json_arguments(source, calls.write, calls, ends, enclosing="}")
        elif strictly and key not in OTHER_KEYS:
            raise NotACall
        else:
            value: list[str] = []
            yield from LiteralReader(source, value.append, _ignore, ends=ends).read()
            if key == "type" and calls.toolbox.resolve(str(decode_arguments("".join(value)))) is not None:
                kind = str(decode_arguments("".join(value)))
            elif key not in OTHER_KEYS:
                beside.append(f"{key!r} beside a call was left out: {''.join(value)}")
        is_first = False
    if not calls.is_open:
        if kind and not default:
            calls.note("the name as a type")
        default = default or kind
        if not default:
            raise NotACall if strictly else MalformedCall("it has no name")
        calls.open(default)
        for fragment in early:
            calls.write(fragment)
    if strictly and not has_arguments:
        raise NotACall
    calls.close()
    for detail in beside:
        calls.dropped("text_left_out", detail)


def _rest_of_object(source: Source, ends: Stops) -> Reader[None]:
    """Read the rest of an object whose nested call is done."""
    while True:
        char = yield from source.skip_space()
        if not char or (yield from source.ahead(ends)):
            return
        if char == "}":
            source.at += 1
            return
        if char == ",":
            source.at += 1
        elif char == '"':
            yield from json_text(source, _ignore)
        elif char == ":":
            source.at += 1
            yield from source.skip_space()
            yield from LiteralReader(source, _ignore, _ignore, ends=ends).read()
        else:
            return


def json_calls(source: Source, calls: Calls, ends: Stops, *, strictly: bool = False) -> Reader[None]:
    """Read `[{…}, {…}]`, each member by itself; separators may be missing, and so may the closing bracket."""
    source.at += 1
    block = Block(source, calls)
    while True:
        char = yield from source.skip_space()
        if char == "{":
            yield from block.member(json_member(source, calls, ends, strictly=strictly), ends)
        elif char == ",":
            source.at += 1
        elif char == "]":
            source.at += 1
            if block.has_calls:
                yield from extra_closers(source, calls)
            break
        elif char in ("}", ")") and block.has_calls:
            yield from extra_closers(source, calls, "]")
        elif not char and not block.has_calls:
            raise TruncatedCall
        elif not char or (yield from source.ahead(ends)):
            break
        elif block.has_calls:
            value: list[str] = []
            yield from LiteralReader(source, value.append, _ignore, ends=ends).read()
            calls.dropped("tool_call_unparsed", f"A value that is no call stood among the calls: {''.join(value)}")
        else:
            raise MalformedCall(f"{char!r} stands where a call was expected")
    block.end()
