"""Write tool calls as models do: the inverse of the dialects' readers, for fakes and tests.

A `Form` writes one call; `each`, `array` and `wrapped` put markers around each call or around all. Every dialect declares its
writer beside its markers, and round-trip tests check that its reader reads what the writer writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Call: TypeAlias = tuple[str, Mapping[str, Any]]
"""A tool's name and its arguments."""
Form: TypeAlias = Callable[[Call, int], str]
"""Writes one call, the nth of its answer."""
Writer: TypeAlias = Callable[[Sequence[Call]], str]
"""Writes all calls of an answer."""


def json_text(value: object) -> str:
    """Return a value as JSON; non-ASCII letters are not escaped."""
    return json.dumps(value, ensure_ascii=False)


def value_text(value: object) -> str:
    """Return text unchanged, and any other value as JSON."""
    return value if isinstance(value, str) else json_text(value)


def each(begin: str, form: Form, end: str, *, before: str = "", after: str = "", between: str = "\n") -> Writer:
    """Return a writer with markers around each call, and optionally around all."""

    def write(calls: Sequence[Call]) -> str:
        return before + between.join(f"{begin}{form(call, at)}{end}" for at, call in enumerate(calls)) + after

    return write


def array(begin: str, form: Form, end: str) -> Writer:
    """Return a writer of the calls as one list."""
    return each("", form, "", before=f"{begin}[", after=f"]{end}", between=", ")


def wrapped(begin: str, form: Form, end: str, between: str = "") -> Writer:
    """Return a writer of all calls between two markers."""
    return each("", form, "", before=begin, after=end, between=between)


def call_object(name: str = "name", arguments: str = "arguments") -> Form:
    """Return a form: a JSON object with the name and the arguments under these keys.

    Without a key for the name, it is `{name: arguments}`.
    """

    def write(call: Call, _: int) -> str:
        return json_text({name: call[0], arguments: call[1]} if name else {call[0]: call[1]})

    return write


def template(text: str) -> Form:
    """Return a form by a template of `$NAME`, `$ARGS` (JSON) and `$AT` (the call's number)."""

    def write(call: Call, at: int) -> str:
        head, mark, tail = text.partition("$ARGS")
        arguments = json_text(call[1]) if mark else ""
        return head.replace("$NAME", call[0]).replace("$AT", str(at)) + arguments + tail

    return write


def elements(
    function: str, function_end: str, parameter: str, parameter_end: str, *,
    around: str = "", between: str = "\n", pads_lines: bool = False,
) -> Form:  # fmt: skip
    """Return a form of elements, with `$NAME`, `$KEY`, `$TYPE` and `$IS_TEXT` in the tags.

    With `pads_lines`, text between two line ends gets two more, because readers remove one at each end as padding.
    """

    def write(call: Call, at: int) -> str:
        inside = "".join(
            _for_value(parameter.replace("$KEY", key), value)
            + _padded(value_text(value), around or ("\n" if pads_lines and _is_between_lines(value) else ""))
            + parameter_end.replace("$KEY", key)
            + between
            for key, value in call[1].items()
        )
        return function.replace("$NAME", call[0]).replace("$AT", str(at + 1)) + between + inside + function_end

    return write


def _padded(text: str, around: str) -> str:
    return f"{around}{text}{around}"


def _is_between_lines(value: object) -> bool:
    return isinstance(value, str) and value[:1] == value[-1:] == "\n"


_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def _for_value(text: str, value: object) -> str:
    kind = _TYPES.get(type(value), "null")
    return text.replace("$TYPE", kind).replace("$IS_TEXT", str(kind == "string").lower())


def pairs(mark: str = "", line: str = "\n", space: str = "") -> Form:
    """Return a form of the name, then alternating keys and values.

    `space` is the prefix of the tags' names.
    """

    def write(call: Call, _: int) -> str:
        inside = "".join(
            f"<{space}arg_key>{key}</{space}arg_key>{line}<{space}arg_value>{value_text(value)}</{space}arg_value>{line}"
            for key, value in call[1].items()
        )
        return f"{call[0]}{mark or line}{inside}"

    return write


def python(call: Call, _: int) -> str:
    """Write a call as Python does."""
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def colons(quote: str) -> Form:
    """Return a form `call:NAME{key:value}` with text between the dialect's quotes."""

    def written(value: object, *, is_top: bool = False) -> str:
        if isinstance(value, str):
            return f"{quote}{value}{quote}"
        if isinstance(value, Mapping):
            mark = "" if is_top else quote
            return "{" + ",".join(f"{mark}{key}{mark}:{written(item)}" for key, item in value.items()) + "}"
        if isinstance(value, Sequence):
            return "[" + ",".join(map(written, value)) + "]"
        return json_text(value)

    def write(call: Call, _: int) -> str:
        return f"call:{call[0]}{written(call[1], is_top=True)}"

    return write
