"""HTTP/1.1's chunked coding (RFC 9112, section 7.1), many chunks at a time.

LM Studio sends every event as an HTTP chunk of its own, and the standard library reads one chunk with several Python calls.
This decoder takes what a read gave and walks over all the chunks in it, which is several times cheaper for small ones.
"""

from __future__ import annotations

__all__ = ["ChunkedDecoder", "ChunkedError"]

MAX_SIZE_LINE = 4096
MAX_TRAILERS = 65536
HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")


class ChunkedError(ValueError):
    """The bytes are no chunked body."""


class ChunkedDecoder:
    """Take the framing off a chunked body, however it was cut."""

    def __init__(self) -> None:
        self.is_finished = False
        self.excess = b""
        self._pending = b""  # the beginning of a size line, of a chunk's end or of the trailers
        self._left = 0  # bytes of the current chunk's data that are still to come
        self._end_is_due = False
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """Give the body's bytes in `data`; what follows the body's end is kept in `excess`.

        Raises:
            ChunkedError: The framing is broken.
        """
        if self._left:
            head = data[: self._left]
            self._left -= len(head)
            if self._left:
                return head
            self._end_is_due = True
            return head + self._walk(self._pending + data[len(head) :])
        return self._walk(self._pending + data)

    def _walk(self, data: bytes) -> bytes:
        """Walk over size lines, data and ends, and keep what is not whole."""
        pieces: list[bytes] = []
        position, size, end_is_due = 0, len(data), self._end_is_due
        while not self._in_trailers:
            if end_is_due:
                if size - position < 2:
                    break
                if data[position : position + 2] != b"\r\n":
                    raise ChunkedError("a chunk's data does not end where its size says")
                position += 2
                end_is_due = False
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                if size - position > MAX_SIZE_LINE:
                    raise ChunkedError("a chunk's size line is too long")
                break
            length = _length(data[position:line_end])
            position = line_end + 2
            if not length:
                self._in_trailers = True
            elif position + length > size:
                pieces.append(data[position:])
                self._left = position + length - size
                position = size
                break
            else:
                pieces.append(data[position : position + length])
                position += length
                end_is_due = True
        self._end_is_due = end_is_due
        self._pending = data[position:]
        if self._in_trailers:
            self._read_trailers()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_trailers(self) -> None:
        """Pass over the trailer fields; the blank line after them ends the body."""
        if self._pending.startswith(b"\r\n"):
            self.excess, self._pending, self.is_finished = self._pending[2:], b"", True
            return
        _, blank_line, rest = self._pending.partition(b"\r\n\r\n")
        if blank_line:
            self.excess, self._pending, self.is_finished = rest, b"", True
        elif len(self._pending) > MAX_TRAILERS:
            raise ChunkedError("the trailers are too long")


def _length(line: bytes) -> int:
    """Read a size line; what follows a semicolon are extensions, which mean nothing here."""
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > 15 or not HEX_DIGITS.issuperset(digits):
        raise ChunkedError(f"a chunk's size line is {line[:40]!r}")
    return int(digits, 16)
