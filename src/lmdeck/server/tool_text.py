"""Parsers of tool calls in LM Studio's default format, for text that arrives in pieces.

`[TOOL_REQUEST]{"name": …, "arguments": …}[END_TOOL_REQUEST]` (LM Studio's docs, `3_openai-compat/tools.mdx`). Free text may
contain anything between the markers, so `CallFinder` waits for the end of a block and passes it on as text if it is not a call,
as LM Studio does. Text generated under the grammar of `lmdeck.server.tool_use` can only be a call, so `ConstrainedCall` passes
the arguments on while they are being written. Neither result depends on how the text was split.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

import msgspec

from lmdeck._encoders.backend_events import TextDelta, ToolArgumentsDelta, ToolCallOpened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmdeck._encoders.backend_events import BackendEvent

OPEN = "[TOOL_REQUEST]"
CLOSE = "[END_TOOL_REQUEST]"
MAX_CALL_CHARS = 1 << 20
"""A longer block is passed on as text, since a model may repeat itself without end."""

_FRAGMENT = re.compile(r"\w+|\W+")
_HEAD = re.compile(re.escape(OPEN) + r'\{"name": ("(?:[^"\\]|\\.)*"), "arguments": ')
_TAIL = "}" + CLOSE


class _ToolRequest(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


def partial_marker_length(text: str, marker: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `marker`."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


def _new_id() -> str:
    """Return a call id in LM Studio's format: nine digits."""
    return str(secrets.randbelow(900_000_000) + 100_000_000)


class CallFinder:
    """A parser that splits free text into text and tool calls."""

    def __init__(self) -> None:
        self._pending = ""  # the end of the input, while it may be the beginning of the next marker
        self._block: list[str] | None = None  # the text since OPEN; None outside a block
        self._block_chars = 0
        self._space: str | None = None  # white space after a call, dropped unless text follows

    def feed(self, text: str) -> Iterator[BackendEvent]:
        """Read a piece of text and yield the events it completes."""
        text = self._pending + text
        while True:
            marker = OPEN if self._block is None else CLOSE
            before, found, after = text.partition(marker)
            pending = 0 if found else partial_marker_length(before, marker)
            self._pending = before[len(before) - pending :]
            yield from self._read(before[: len(before) - pending])
            if not found:
                return
            if marker == OPEN:
                self._block, self._block_chars = [], 0
            else:
                yield from self._close()
            text = after

    def finish(self) -> Iterator[BackendEvent]:
        """Yield the pending text; a block without an end is text."""
        block, self._block = self._block, None
        opened = "" if block is None else OPEN + "".join(block)
        rest, self._pending = opened + self._pending, ""
        yield from self._read(rest)

    def _read(self, text: str) -> Iterator[BackendEvent]:
        if self._block is None:
            yield from self._text(text)
            return
        self._block.append(text)
        self._block_chars += len(text)
        if self._block_chars > MAX_CALL_CHARS:
            block, self._block = self._block, None
            yield from self._text(OPEN + "".join(block))

    def _text(self, text: str) -> Iterator[BackendEvent]:
        if self._space is not None:
            text = self._space + text
            self._space = text if not text.strip() else None
        if text and self._space is None:
            yield TextDelta(text)

    def _close(self) -> Iterator[BackendEvent]:
        block = "".join(self._block or ())
        self._block = None
        arguments = None
        try:
            call = msgspec.json.decode(block, type=_ToolRequest)
            arguments = msgspec.json.decode(call.arguments)
        except (msgspec.DecodeError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict) or not call.name:
            yield from self._text(OPEN + block + CLOSE)
            return
        self._space = ""
        yield ToolCallOpened(_new_id(), call.name)
        for fragment in _FRAGMENT.findall(bytes(call.arguments).decode()):
            yield ToolArgumentsDelta(fragment)


class ConstrainedCall:
    """A parser of the single call that the grammar allows.

    It passes the arguments on as they arrive.
    """

    def __init__(self) -> None:
        self._started = False
        self._pending = ""

    def feed(self, text: str) -> Iterator[BackendEvent]:
        """Read a piece of text and yield the events it completes."""
        text = self._pending + text
        if not self._started:
            head = _HEAD.match(text)
            if head is None:
                self._pending = text
                return
            self._started = True
            yield ToolCallOpened(_new_id(), msgspec.json.decode(head[1], type=str))
            text = text[head.end() :]
        pending = len(_TAIL) if text.endswith(_TAIL) else partial_marker_length(text, _TAIL)
        self._pending = text[len(text) - pending :]
        if len(text) > pending:
            yield ToolArgumentsDelta(text[: len(text) - pending])

    def finish(self) -> Iterator[BackendEvent]:
        """Yield the pending arguments without the end marker.

        A call cut off before its name ends is text.
        """
        rest, self._pending = self._pending.removesuffix(_TAIL), ""
        if rest:
            yield ToolArgumentsDelta(rest) if self._started else TextDelta(rest)
