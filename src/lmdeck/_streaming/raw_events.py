"""The data of a stream's events as it arrived, for `Reply.raw`."""

from __future__ import annotations

from lmdeck._streaming.text_template import TextTemplate

BURST = 16


class RawEvents:
    """The data of the events of one stream, up to a limit in bytes.

    Consecutive events are nearly equal: id, time, model and everything around the new text. The common start and end of the
    events of a group are stored once.
    """

    __slots__ = (
        "_groups", "_head", "_is_alone", "_middles", "_new", "_remaining", "_tail", "_template", "count", "is_short",
    )  # fmt: skip

    def __init__(self, limit: int, template: TextTemplate) -> None:
        self._remaining = limit
        self._template = template  # its events share its bytes
        self._head = self._tail = b""
        self._is_alone = True  # whether the last group has one event, which is its head
        self._groups: list[tuple[int, bytes, bytes]] = []  # the index of the first event, the head and the tail
        self._middles: list[bytes] = []
        self._new: list[bytes] = []  # the events of the current read
        self.count = 0  # the number of all events, including those beyond the limit
        self.is_short = False

    def add(self, data: bytes) -> None:
        """Count an event, and store it unless the limit is reached."""
        self.count += 1
        if self._remaining > 0:
            self._remaining -= len(data)
            self._new.append(data)
        else:
            self.is_short = True

    def add_text(self, text: bytes) -> None:
        """Count and store an event that differs from the template only in its text."""
        head, tail = self._template.head, self._template.tail
        if self._head is head and self._tail is tail and self._remaining > 0:
            self.count += 1
            self._remaining -= len(head) + len(text) + len(tail)
            self._middles.append(text)
        else:
            self.add(head + text + tail)
            self.end_read()

    def end_read(self) -> None:
        """Store the events of a read; what they share with earlier ones is stored once.

        Many at once are stored whole: the server is fast, and the stream ends soon.
        """
        new = self._new
        if len(new) < BURST:
            for data in new:
                begin, end = len(self._head), len(data) - len(self._tail)
                if self._is_alone or begin > end or data[:begin] != self._head or data[end:] != self._tail:
                    begin, end = self._begin_group(data)
                self._middles.append(data[begin:end])
        else:
            self._head, self._tail, self._is_alone = b"", b"", True
            self._groups.append((len(self._middles), b"", b""))
            self._middles += new
        new.clear()

    def events(self) -> list[bytes]:
        """Return the data of the stored events."""
        self.end_read()
        ends = [*(first for first, _, _ in self._groups[1:]), len(self._middles)]
        return [
            head + middle + tail
            for (first, head, tail), end in zip(self._groups, ends, strict=False)
            for middle in self._middles[first:end]
        ]

    def _begin_group(self, data: bytes) -> tuple[int, int]:
        """Find a group for an event that does not fit the last one; return the span of its middle.

        A single event is a head without a middle until the next one shows what they share.
        """
        head, tail = self._shared(self._head, data) if self._is_alone else (b"", b"")
        self._is_alone = 2 * (len(head) + len(tail)) <= len(data)
        if self._is_alone:
            head, tail = data, b""
            self._groups.append((len(self._middles), head, tail))
        else:
            previous = self._head
            self._groups[-1] = len(self._middles) - 1, head, tail
            self._middles[-1] = previous[len(head) : len(previous) - len(tail)]
        self._head, self._tail = head, tail
        return len(head), len(data) - len(tail)

    def _shared(self, one: bytes, other: bytes) -> tuple[bytes, bytes]:
        """Return the common start of two events, and the common end of the rest."""
        template = self._template
        if template.surrounds(one) and template.surrounds(other):
            return template.head, template.tail
        begin = _shared_length(one, other)
        end = _shared_length(one[begin:][::-1], other[begin:][::-1])
        return other[:begin], other[len(other) - end :]


def _shared_length(one: bytes, other: bytes) -> int:
    """Return how many bytes two values have in common at their start."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
