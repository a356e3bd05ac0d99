"""Decode events that differ from the previous one only in their text, as most do.

Id, time, model and everything else around the text are the same bytes, so decoding them again would be wasted. Only the text is
decoded if that is safe: the bytes around it are equal, and the bytes between are one JSON string.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from lmdeck._responses.json_bodies import DECODE_ERRORS
from lmdeck._streaming.sse import DATA_FIELD, END, LF

PROBE = b"?"
TRIES = 4
"""How many unused templates are created: some servers change more than the text in each event."""
_decode_string = msgspec.json.Decoder(str).decode


class TextTemplate:
    """The bytes around the text of the last event that contained only text."""

    __slots__ = ("_tries", "head", "tail")

    def __init__(self) -> None:
        self.head = self.tail = b""
        self._tries = TRIES

    def surrounds(self, data: bytes) -> bool:
        """Whether an event begins and ends like the template."""
        is_longer = 0 < len(self.head) < len(data) - len(self.tail)
        return is_longer and data.startswith(self.head) and data.endswith(self.tail)

    def text_of(self, data: bytes) -> str:
        """Return the text of an event that certainly differs only in its text; otherwise `""`."""
        begin, end = len(self.head), len(data) - len(self.tail)
        if not 0 < begin < end or data[:begin] != self.head or data[end:] != self.tail:
            return ""
        return self.decoded(data[begin - 1 : end + 1])

    def is_around(self, around: tuple[bytes, bytes]) -> bool:
        """Whether `around` is what an event has before and after its text."""
        return around == (self.head, self.tail)

    def string_in_event(self, data: bytes) -> bytes:
        """Return the JSON string in a complete event that the template surrounds; otherwise `b""`.

        If it can be decoded, the bytes are one event of one line: a JSON string contains no line end.
        """
        head, tail = self.head, self.tail
        begin, end = len(DATA_FIELD) + len(head), len(data) - len(tail) - len(END)
        if not head or begin >= end or data[6:begin] != head or data[end:-2] != tail:
            return b""
        return data[begin - 1 : end + 1] if data[:6] == DATA_FIELD and data[-2:] == END else b""

    def decoded(self, quoted: bytes) -> str:
        """Decode one JSON string; `""` if it is something else, such as two of them."""
        try:
            text = _decode_string(quoted)
        except DECODE_ERRORS:
            return ""
        self._tries = TRIES
        return text

    def learn(self, data: bytes, text: str, read_text: Callable[[bytes], object]) -> None:
        """Store the bytes around the text of an event; `read_text` decodes an event.

        It is called with another text in the same position, to check that this is the position of the text. Events of several
        lines are not learned.
        """
        if not self._tries or LF in data or self.surrounds(data):
            return
        head, quoted, tail = data.partition(b'"%s"' % text.encode())
        if not quoted:  # the text is written with escapes
            return
        self._tries -= 1
        if read_text(b'%s"%s"%s' % (head, PROBE, tail)) == PROBE.decode() != text:
            self.head, self.tail = head + b'"', b'"' + tail

    def forget(self) -> None:
        """Discard the template after an event with other content.

        After such an event, such as the finish reason, a text may have another meaning.
        """
        self.head = self.tail = b""
