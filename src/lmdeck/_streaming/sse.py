"""Server-sent events (WHATWG HTML, 9.2.6 "Interpreting an event stream").

Lines end only with LF, CR or CRLF: U+2028 inside JSON is text. They are split as bytes, so a read may end anywhere, even inside
a UTF-8 sequence or between CR and LF. There are three deviations: an event without its blank line at the end of the stream is
returned by `finish` instead of dropped, a line `error: …` is the data of an event named `error` (llama.cpp until 2025), and
data stays bytes, because JSON decoders check UTF-8 themselves and report the position of an error.
"""

from __future__ import annotations

from msgspec import Struct

from lmdeck._late_patterns import late_pattern
from lmdeck._limits import DEFAULT_LIMITS, Limits
from lmdeck.errors import MalformedStreamError

BOM = b"\xef\xbb\xbf"
CR, LF = b"\r\n"  # integers: searching for one takes a sixth of the time of searching for bytes
DATA_FIELD, END = b"data: ", b"\n\n"  # around the data of an event of one line, as servers of models write it
EVENT_DATA = slice(len(DATA_FIELD), -len(END))
_ANY_END = late_pattern(rb"\r\n|\n|\r")


class ServerSentEvent(Struct, frozen=True, gc=False):
    """One event: its data and its name (`""` means `message`)."""

    data: bytes
    event: str = ""


class SSEDecoder:
    """A decoder of the bytes of a stream into events; a read may end anywhere."""

    __slots__ = (
        "_at_start", "_data", "_data_bytes", "_event", "_last_was_cr", "_limits", "_partial", "_partial_bytes",
        "is_between_events",
    )  # fmt: skip

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._partial: list[bytes] = []  # the pieces of the unfinished line, joined only once
        self._partial_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._last_was_cr = False
        self._at_start = True
        self.is_between_events = False  # whether the next bytes begin an event, which is asked at each read

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Read some bytes and return the events that they complete.

        Raises:
            MalformedStreamError: A line or an event is over its limit.
        """
        if data[:6] == DATA_FIELD and data[-2:] == END and self.is_between_events:
            line = data[EVENT_DATA]  # at the pace of a model, a read is one event of one line
            if LF not in line and CR not in line:
                return [ServerSentEvent(line)]
        self.is_between_events = False
        if self._last_was_cr and data:
            self._last_was_cr = False
            data = data.removeprefix(b"\n")
        if CR in data:
            self._last_was_cr = data.endswith(b"\r")
            lines = _ANY_END.split(data)
        else:
            lines = data.split(b"\n")
        rest = lines.pop()
        if not lines:
            self._add_partial(rest)
            return []
        if self._partial:
            lines[0] = b"".join((*self._partial, lines[0]))
            self._partial.clear()
            self._partial_bytes = 0
        if self._at_start:
            lines[0] = lines[0].removeprefix(BOM)
            self._at_start = False
        if rest:
            self._add_partial(rest)
        events = self._read(lines)
        self.is_between_events = not (rest or self._data or self._event or self._last_was_cr)
        return events

    def finish(self) -> list[ServerSentEvent]:
        """Return the last event if only its blank line is missing, as with some servers.

        Raises:
            MalformedStreamError: A line or an event is over its limit.
        """
        line = b"".join(self._partial)
        self._partial.clear()
        return self._read([line.removeprefix(BOM) if self._at_start else line, b""])

    def _add_partial(self, rest: bytes) -> None:
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
                    self._read_field(line)
            elif pending:
                events.append(self._pop_event() if len(pending) > 1 or self._event else ServerSentEvent(pending[0]))
                pending.clear()
            else:
                self._event = ""
        return events

    def _read_field(self, line: bytes) -> None:
        """Read a line of any kind; comments (`: …`) and unknown fields are ignored."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"error":
            self._event = "error"
            self._add_data(value)

    def _add_data(self, value: bytes) -> None:
        if len(self._data) < 2:  # `_read` adds the first line of an event without counting it
            self._data_bytes = sum(map(len, self._data))
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._limits.event_bytes:
            raise MalformedStreamError(f"An event of the stream is larger than {self._limits.event_bytes} bytes.")
        self._data.append(value)

    def _pop_event(self) -> ServerSentEvent:
        event, self._event = self._event, ""
        return ServerSentEvent(b"\n".join(self._data), event)
