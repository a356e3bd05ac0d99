"""The answer that arrives on a connection of urllib3: its bytes, its head, its body.

The head is parsed by RFC 9112, sections 2 to 5: `http.client` uses the e-mail parser, which is slow, splits lines at characters
that are not line ends in HTTP, and ignores all headers after an invalid line. Chunked bodies are read many chunks at a time. A
limit may span several reads.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from urllib3 import HTTPHeaderDict

from lmdeck._forking import disown
from lmdeck._transport import FIRST_FINAL_STATUS, MAX_HEADERS, MAX_LINE_BYTES, READ_BYTES
from lmdeck._transport.chunked import ChunkedDecoder

SWITCHING_PROTOCOLS = 101
MAX_INTERIM_ANSWERS = 100
TRANSFER_CODINGS = frozenset({"chunked", "identity"})
_is_status_line = re.compile(r"(HTTP/1\.[0-9]) ([1-9][0-9]{2})(?: ([^\0\r\n]*))?\r?\n").fullmatch
_is_length = re.compile(r"[0-9]{1,19}").fullmatch
_is_field = re.compile(r"(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+):|(?=[ \t]))([^\0\r\n]*)\r?\n").fullmatch


class TimedReads(io.RawIOBase):
    """The bytes of a socket, read with a timeout.

    If `by` is set, all reads must end by that point in time.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.by: float | None = None
        self.unread = 0
        self.is_inherited = False
        self.received = 0
        self._seconds = sock.gettimeout()
        self._file = sock.makefile("rb", buffering=0)  # keeps the socket open while it is read

    def makefile(self, _mode: str) -> _Buffer:
        """Return the file that `http.client` reads a response from."""
        return _Buffer(self)

    def limit(self, seconds: float) -> None:
        """Set the timeout of each of the next reads."""
        if seconds != self._seconds and not self.closed:
            self.sock.settimeout(seconds)
            self._seconds = seconds

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # a buffer has no type before Python 3.12
        """Read the bytes that have arrived, at least one."""
        if self.is_inherited:
            raise ConnectionResetError
        if self.by is not None:
            remaining = self.by - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("timed out")
            self.sock.settimeout(remaining if self._seconds is None else min(remaining, self._seconds))
        count = self.sock.recv_into(buffer)
        self.received += count
        return count

    def tell(self) -> int:
        """Return the number of bytes received; a buffer derives from it how many of them were read."""
        return self.received

    def cut(self) -> None:
        """Shut the connection down, which ends a read that waits in another thread."""
        if not self.is_inherited:
            with suppress(OSError):  # the socket may already be closed
                self.sock.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """Leave the socket to the parent process."""
        self.is_inherited = True
        disown(self.sock.fileno())

    def close(self) -> None:
        """Release the socket."""
        self._file.close()
        super().close()


class _Buffer(io.BufferedReader):
    """A buffer over a socket that records the number of unread bytes when it is closed."""

    def close(self) -> None:
        """Close the buffer and record the number of unread bytes."""
        if not self.closed:
            self.raw.unread = self.raw.received - self.tell()  # type: ignore[attr-defined]  # `TimedReads`
        super().close()


class BulkHTTPResponse(http.client.HTTPResponse):
    """The standard library's response, but chunked bodies are read many chunks at a time."""

    # Of the base class, which typeshed leaves out.
    _method: str | None
    _check_close: Callable[[], bool]

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # the base's signature
        self.reads = TimedReads(sock)
        super().__init__(self.reads, *args, **kwargs)  # type: ignore[arg-type]  # only its file is used
        self._decoder: ChunkedDecoder | None = None

    def begin(self) -> None:
        """Read the whole head within the socket's timeout and determine how the body is framed."""
        seconds = self.reads.sock.gettimeout()
        self.reads.by = None if seconds is None else time.monotonic() + seconds
        version, self.status, reason = self._read_status()
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code, self.reason = self.status, reason.strip()
        self.fields = self.headers = self.msg = read_fields(self.fp)  # type: ignore[assignment]  # has what is used
        self.reads.by = None
        self._frame()

    def _frame(self) -> None:
        """Determine where the body ends (RFC 9112, section 6.3).

        Raises:
            http.client.HTTPException: The head does not define it, or defines it in two ways.
        """
        codings, lengths = self._listed("transfer-encoding"), set(self._listed("content-length"))
        if not TRANSFER_CODINGS.issuperset(codings) or codings.count("chunked") > 1:
            raise http.client.HTTPException("the transfer coding is unknown")
        if len(lengths) > 1 or not all(map(_is_length, lengths)):
            raise http.client.HTTPException("the length is ambiguous or no number")
        self.chunked = "chunked" in codings
        self._decoder = ChunkedDecoder() if self.chunked else None
        self.length = int(lengths.pop()) if lengths and not self.chunked else None
        if self.status in {SWITCHING_PROTOCOLS, 204, 304} or self._method == "HEAD":
            self.length = 0
        self.will_close = self._check_close() or (not self.chunked and self.length is None)

    def _listed(self, name: str) -> list[str]:
        """Return the values of a header in lower case; it may be repeated or a list."""
        lines = self.fields.getlist(name, ())
        return [value.strip(" \t").lower() for line in lines for value in line.split(",")] if lines else []

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line of the answer, skipping interim answers (RFC 9110, 15.2)."""
        for _ in range(MAX_INTERIM_ANSWERS):
            version, status, reason = self._read_status_line()
            if status == SWITCHING_PROTOCOLS or status >= FIRST_FINAL_STATUS:
                return version, status, reason
            read_fields(self.fp)
        raise http.client.HTTPException(f"more than {MAX_INTERIM_ANSWERS} interim answers")

    def _read_status_line(self) -> tuple[str, int, str]:
        """Return version, status and reason (RFC 9112, section 4)."""
        line = self.fp.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise http.client.RemoteDisconnected("the server closed the connection without an answer")
        if line.startswith(b"HTTP/1.") and not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            raise http.client.IncompleteRead(line)
        found = _is_status_line(line.decode("latin-1"))
        if not found:
            raise http.client.BadStatusLine(line.decode("latin-1"))
        return found[1], int(found[2]), found[3] or ""

    def read1(self, n: int = -1) -> bytes:
        """Return the bytes that have arrived, at least one; `b""` at the end of the body."""
        decoder = self._decoder
        if decoder is None or self.fp is None:
            return super().read1(n)
        while not decoder.is_finished:
            wire = self.fp.read1(n if n > 0 else READ_BYTES)
            if not wire:
                raise http.client.IncompleteRead(b"")
            data = decoder.feed(wire)
            if data:
                return data
        self.close()
        self.reads.unread += len(decoder.excess)
        return b""


def read_fields(file: BinaryIO) -> HTTPHeaderDict:
    """Read headers up to and including the blank line; a folded line continues the previous one.

    Raises:
        http.client.HTTPException: A line is invalid or too long, there are too many, or the connection ended.
    """
    fields: list[tuple[str, str]] = []
    for _ in range(MAX_HEADERS + 1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if line in (b"\r\n", b"\n"):
            headers = HTTPHeaderDict()  # from a list, it takes twice as long, because it checks types
            for field in fields:
                headers.add(*field)
            return headers
        if len(line) > MAX_LINE_BYTES:
            raise http.client.LineTooLong("header line")
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        found = _is_field(line.decode("latin-1"))
        if not found or not (found[1] or fields):
            raise http.client.HTTPException("a line of the head is not a header")
        name, value = found.groups()
        if not name:
            name, first = fields.pop()
            value = f"{first} {value.lstrip()}"
        fields.append((name, value.strip(" \t")))
    raise http.client.HTTPException(f"the head has more than {MAX_HEADERS} lines")
