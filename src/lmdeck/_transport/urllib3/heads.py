"""Heads of HTTP/1.1 messages: write a request's, parse a response's.

Source: RFC 9112, sections 2 to 5. `http.client` writes each header with several calls and parses heads with the e-mail parser.
That is slow, splits lines at characters that are not line ends in HTTP, and ignores all headers after an invalid line.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from typing import BinaryIO

from urllib3 import HTTPHeaderDict

__all__ = ["read_fields", "request_head"]

MAX_LINE_BYTES = 65536
MAX_LINES = 100
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "TRACE", "OPTIONS", "CONNECT"})
_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_is_target = re.compile(r"[!-~]+").fullmatch
_is_field = re.compile(r"(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+):|(?=[ \t]))([^\0\r\n]*)\r?\n").fullmatch


def request_head(method: str, target: str, host: str, body: bytes | None, fields: Mapping[str, str]) -> bytes:
    """Return the head of a request.
    `host` is the value of `Host` if the fields do not contain one.

    Raises:
        ValueError: A part contains characters that HTTP does not allow there.
    """
    added = {} if "host" in map(str.lower, fields) else {"Host": host}
    if body is not None or method not in _METHODS_WITHOUT_BODY:
        added["Content-Length"] = str(len(body or b""))
    whole = {**added, **fields}
    if not (_is_token(method) and _is_target(target) and all(map(_is_token, whole))):
        raise ValueError("a method, a target or the name of a header is not valid HTTP")
    lines = [f"{method} {target} HTTP/1.1", *map(": ".join, whole.items()), "\r\n"]
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines) or "\0" in head:
        raise ValueError("the value of a header is not one line")
    return head.encode("latin-1")


def read_fields(file: BinaryIO) -> HTTPHeaderDict:
    """Read headers up to and including the blank line.
    A folded line continues the header before it.

    Raises:
        http.client.HTTPException: A line is invalid or too long, there are too many, or the connection ended.
    """
    fields: list[tuple[str, str]] = []
    for _ in range(MAX_LINES):
        line = file.readline(MAX_LINE_BYTES + 1)
        if line in (b"\r\n", b"\n"):
            return HTTPHeaderDict(fields)
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
    raise http.client.HTTPException(f"the head has more than {MAX_LINES} lines")
