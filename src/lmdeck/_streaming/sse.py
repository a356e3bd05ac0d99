"""Server-sent events, after the WHATWG specification (HTML, section 9.2.6 "Interpreting an event stream").

Lines end with LF, CR or CRLF and with nothing else: U+2028 inside JSON is text. They are cut in bytes, so a read may end
anywhere, also inside a UTF-8 sequence or between CR and LF. Two readings are kinder than the letter: an event that the end
of the stream cuts short is not dropped in silence but told apart (`is_clean`), and data stays bytes, because JSON decoders
check UTF-8 themselves and say where it is broken.
"""

from __future__ import annotations

import re

from msgspec import Struct

from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck.errors import MalformedStreamError

__all__ = ["SSEDecoder", "ServerSentEvent", "encode_comment", "encode_event"]

BOM = b"\xef\xbb\xbf"
_ANY_END = re.compile(rb"\r\n|\n|\r")


class ServerSentEvent(Struct, frozen=True, gc=False):
    """One event: its data, and its name where it has one (`""` stands for `message`)."""

    data: bytes
    event: str = ""


class SSEDecoder:
    """Turn the bytes of a stream into events, however they were cut."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._partial: list[bytes] = []  # the line that has not ended yet, in pieces so that it is joined only once
        self._partial_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._last_was_cr = False
        self._at_start = True

    @property
    def is_clean(self) -> bool:
        """Tell whether the bytes so far end with a whole event."""
        return not (self._partial or self._data)

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Read some bytes and give the events that they completed.

        Raises:
            MalformedStreamError: A line or an event is over its limit.
        """
        if self._last_was_cr and data:
            self._last_was_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._last_was_cr = data.endswith(b"\r")
            lines = _ANY_END.split(data)
        else:
            lines = data.split(b"\n")
        rest = lines.pop()
        if not lines:
            self._keep(rest)
            return []
        if self._partial:
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial.clear()
            self._partial_bytes = 0
        if self._at_start:
            lines[0] = lines[0].removeprefix(BOM)
            self._at_start = False
        if rest:
            self._keep(rest)
        return self._read(lines)

    def finish(self) -> list[ServerSentEvent]:
        """Read the end of the stream: a last event that lacks only its blank line is given, as real servers send such.

        Raises:
            MalformedStreamError: A line or an event is over its limit.
        """
        line = b"".join(self._partial)
        self._partial.clear()
        return self._read([line.removeprefix(BOM) if self._at_start else line, b""])

    def _keep(self, rest: bytes) -> None:
        self._partial_bytes += len(rest)
        if self._partial_bytes > self._limits.line_bytes:
            raise MalformedStreamError(f"A line of the stream is longer than {self._limits.line_bytes} bytes.")
        if rest:
            self._partial.append(rest)

    def _read(self, lines: list[bytes]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        pending = self._data
        for line in lines:
            if line:
                if line[:6] == b"data: " and not pending:
                    pending.append(line[6:])
                else:
                    self._field(line)
            elif pending:
                events.append(self._joined() if len(pending) > 1 or self._event else ServerSentEvent(pending[0]))
                pending.clear()
            else:
                self._event = ""
        return events

    def _field(self, line: bytes) -> None:
        """Read any other line: a comment begins with a colon, and unknown fields are ignored."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._more_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")

    def _more_data(self, value: bytes) -> None:
        if len(self._data) < 2:  # the first line of an event may have come the short way, uncounted
            self._data_bytes = sum(map(len, self._data))
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._limits.event_bytes:
            raise MalformedStreamError(f"An event of the stream is larger than {self._limits.event_bytes} bytes.")
        self._data.append(value)

    def _joined(self) -> ServerSentEvent:
        event, self._event = self._event, ""
        return ServerSentEvent(b"\n".join(self._data), event)


def encode_event(data: bytes, event: str | None = None) -> bytes:
    """Write one event: each line of `data` a `data:` line of its own, so that decoding gives `data` back.

    Raises:
        ValueError: The event's name holds a line end.
    """
    if event is not None and ("\n" in event or "\r" in event):
        raise ValueError("an event's name cannot hold a line end")
    head = b"" if event is None else b"event: %s\n" % event.encode()
    return head + b"".join(b"data: %s\n" % line for line in _ANY_END.split(data)) + b"\n"


def encode_comment(text: str = "") -> bytes:
    """Write a comment, which readers ignore: a heartbeat that keeps proxies from closing a silent stream."""
    return b"".join(b": %s\n" % line for line in _ANY_END.split(text.encode())) + b"\n"
