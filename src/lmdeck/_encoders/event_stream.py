"""Events and comments of an event stream as bytes (WHATWG HTML, 9.2.5)."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")


def encode_event(data: bytes, event: str | None = None) -> bytes:
    """Return an event as bytes, each line of `data` as a separate `data:` line.

    Raises:
        ValueError: The name of the event contains a line end.
    """
    if event is not None and ("\n" in event or "\r" in event):
        raise ValueError("an event's name cannot contain a line end")
    head = b"" if event is None else b"event: %s\n" % event.encode()
    return head + b"".join(b"data: %s\n" % line for line in _LINE_END.split(data)) + b"\n"


def encode_comment(text: str = "") -> bytes:
    """Return a comment as bytes; readers ignore it, and proxies do not close the stream as idle."""
    return b"".join(b": %s\n" % line for line in _LINE_END.split(text.encode())) + b"\n"
