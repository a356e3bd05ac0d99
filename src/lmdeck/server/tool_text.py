"""Finds tool calls of LM Studio's default format in text that arrives in pieces.

`[TOOL_REQUEST]{"name": …, "arguments": …}[END_TOOL_REQUEST]` (LM Studio's docs, `3_openai-compat/tools.mdx`). Free text may
hold anything between the markers, so `CallFinder` waits for the end of a block and gives it back as text if it is no call, as
LM Studio does. Text made under the grammar of `lmdeck.server.tool_use` can only be a call, so `ConstrainedCall` hands the
arguments on while they are being written. Neither result depends on how the text was cut.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import msgspec

from lmdeck.server.events import TextDelta, ToolArgumentsDelta, ToolCallStart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck.server.events import Event

__all__ = ["CLOSE", "OPEN", "CallFinder", "ConstrainedCall", "held"]

OPEN = "[TOOL_REQUEST]"
CLOSE = "[END_TOOL_REQUEST]"
MAX_CALL_CHARS = 1 << 20
"""A block that grows beyond this is text after all: a model can loop for ever."""

_FRAGMENT = re.compile(r"\w+|\W+")
_HEAD = re.compile(re.escape(OPEN) + r'\{"name": ("(?:[^"\\]|\\.)*"), "arguments": ')
_TAIL = "}" + CLOSE


class _Call(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


def held(text: str, marker: str) -> int:
    """Count the characters at the end of `text` that may be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


def _new_id() -> str:
    """Make a call id as LM Studio writes them: nine digits."""
    return str(secrets.randbelow(900_000_000) + 100_000_000)


class CallFinder:
    """Splits free text into text and the calls within it."""

    def __init__(self) -> None:
        self._pending = ""  # the end of what was fed, where it may be the beginning of the marker that is waited for
        self._block: list[str] | None = None  # the text since OPEN; None outside a block
        self._block_chars = 0
        self._space: str | None = None  # white space behind a call, which belongs to nothing unless text follows

    def feed(self, text: str) -> Iterator[Event]:
        """Take the next piece."""
        text = self._pending + text
        while True:
            marker = OPEN if self._block is None else CLOSE
            before, found, behind = text.partition(marker)
            keep = 0 if found else held(before, marker)
            self._pending = before[len(before) - keep :]
            yield from self._take(before[: len(before) - keep])
            if not found:
                return
            if marker == OPEN:
                self._block, self._block_chars = [], 0
            else:
                yield from self._close()
            text = behind

    def finish(self) -> Iterator[Event]:
        """Give what was held back: a block that never ended is text."""
        block, self._block = self._block, None
        opened = "" if block is None else OPEN + "".join(block)
        rest, self._pending = opened + self._pending, ""
        yield from self._take(rest)

    def _take(self, text: str) -> Iterator[Event]:
        if self._block is None:
            yield from self._text(text)
            return
        self._block.append(text)
        self._block_chars += len(text)
        if self._block_chars > MAX_CALL_CHARS:
            block, self._block = self._block, None
            yield from self._text(OPEN + "".join(block))

    def _text(self, text: str) -> Iterator[Event]:
        if self._space is not None:
            text = self._space + text
            self._space = text if not text.strip() else None
        if text and self._space is None:
            yield TextDelta(text)

    def _close(self) -> Iterator[Event]:
        block = "".join(self._block or ())
        self._block = None
        arguments = None
        try:
            call = msgspec.json.decode(block, type=_Call)
            arguments = msgspec.json.decode(call.arguments)
        except (msgspec.DecodeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or not call.name:
            yield from self._text(OPEN + block + CLOSE)
            return
        self._space = ""
        yield ToolCallStart(_new_id(), call.name)
        for fragment in _FRAGMENT.findall(bytes(call.arguments).decode()):
            yield ToolArgumentsDelta(fragment)


class ConstrainedCall:
    """Reads the one call that the grammar lets the model write, its arguments as they come."""

    def __init__(self) -> None:
        self._started = False
        self._pending = ""

    def feed(self, text: str) -> Iterator[Event]:
        """Take the next piece."""
        text = self._pending + text
        if not self._started:
            head = _HEAD.match(text)
            if head is None:
                self._pending = text
                return
            self._started = True
            yield ToolCallStart(_new_id(), msgspec.json.decode(head[1], type=str))
            text = text[head.end() :]
        keep = len(_TAIL) if text.endswith(_TAIL) else held(text, _TAIL)
        self._pending = text[len(text) - keep :]
        if len(text) > keep:
            yield ToolArgumentsDelta(text[: len(text) - keep])

    def finish(self) -> Iterator[Event]:
        """Drop the end of the format; what a length limit cut off before its name is nothing a client could use as a call."""
        rest, self._pending = self._pending.removesuffix(_TAIL), ""
        if rest:
            yield ToolArgumentsDelta(rest) if self._started else TextDelta(rest)
