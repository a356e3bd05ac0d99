"""Faults on the wire: each makes, of an answer that is right, what a broken server, proxy or network sends instead.

A fault takes status, content type and body, and returns the steps of a `Loopback`. `RIGHT` must still end in the right result,
`ERROR` in a typed error, and `EITHER` in one of the two, since sync and async libraries are not equally strict there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loopback import CLOSE, HANG, RESET, Step, head, http_chunks

__all__ = ["EITHER", "ERROR", "FAULTS", "RIGHT", "Fault", "Whole"]

RIGHT, ERROR, EITHER = "right", "error", "either"
SHORT = {"timeout": 0.3, "first_token_timeout": 0.4}
SILENT = {"total_timeout": 0.5}


@dataclass(frozen=True)
class Whole:
    """An answer that is right."""

    status: int
    kind: str
    body: bytes

    @property
    def head(self) -> bytes:
        """Its head, with its length."""
        return head(self.status, content_type=self.kind, content_length=len(self.body))

    @property
    def half(self) -> bytes:
        """The first half of its body."""
        return self.body[: len(self.body) // 2]

    def chunked(self, **headers: object) -> bytes:
        """Its head, in HTTP's chunked coding."""
        return head(self.status, content_type=self.kind, transfer_encoding="chunked", **headers)

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return self.kind.startswith("text/event-stream")


@dataclass(frozen=True)
class Fault:
    """A fault: what it sends, how the operation must end, and the limits that it needs."""

    steps: Callable[[Whole], list[Step]]
    verdict: str
    limits: dict[str, Any] = field(default_factory=dict)


def refusal(
    status: int, body: object, kind: str = "application/json", **headers: object
) -> Callable[[Whole], list[Step]]:
    """Return a fault that answers with another status and body."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return lambda _: [head(status, content_type=kind, content_length=len(data), **headers) + data]


def cut(coded: Callable[[Whole], bytes], end: Step) -> Callable[[Whole], list[Step]]:
    """Return a fault that ends half-way."""
    return lambda whole: [coded(whole), 0.02, end]


def events_then(event: bytes) -> Callable[[Whole], list[Step]]:
    """Return a fault that has an event follow half of a stream, or be the answer of what is not streamed."""

    def steps(whole: Whole) -> list[Step]:
        events = whole.body.split(b"\n\n")
        body = b"\n\n".join(events[: len(events) // 2]) + b"\n\n" + event if whole.is_stream else event
        return [head(200, content_type=whole.kind, content_length=len(body)) + body]

    return steps


def coded(coding: str, pack: Callable[[bytes], bytes]) -> Callable[[Whole], list[Step]]:
    """Return a fault that codes the body, asked or not."""

    def steps(whole: Whole) -> list[Step]:
        body = pack(whole.body)
        return [head(whole.status, content_type=whole.kind, content_encoding=coding, content_length=len(body)) + body]

    return steps


PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1>nginx</body></html>"
ENGINE = 'Engine protocol predict request returned 503: {"error": {"code": 503, "message": "Loading model"}}'
EXITED = "Engine protocol runtime llama-server for m exited before becoming healthy. exitCode=1, signal=null"
UNKNOWN_EVENT = b'event: error\ndata: {"error": {"message": "something broke that nobody has a name for"}}\n\n'
EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

FAULTS: dict[str, Fault] = {
    # --- harmless: the answer is still right
    "whole": Fault(lambda w: [w.head + w.body], RIGHT),
    "byte by byte": Fault(lambda w: [w.head, *(w.body[at : at + 7] for at in range(0, len(w.body), 7))], RIGHT),
    "chunked": Fault(lambda w: [w.chunked(), http_chunks(w.half, w.body[len(w.half) :])], RIGHT),
    "chunked by bytes": Fault(lambda w: [w.chunked(), http_chunks(*(bytes([each]) for each in w.body[:4000]), w.body[4000:])
                                         if len(w.body) > 4000 else http_chunks(*(bytes([each]) for each in w.body))], RIGHT),
    "chunk extension": Fault(lambda w: [w.chunked(), b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(w.body), w.body)], RIGHT),
    "trailers": Fault(lambda w: [w.chunked(), http_chunks(w.body, last=False) + b"0\r\nX-Sum: 1\r\n\r\n"], RIGHT),
    "close-delimited": Fault(lambda w: [head(w.status, content_type=w.kind, connection="close") + w.body, CLOSE], RIGHT),
    "http/1.0": Fault(lambda w: [w.head.replace(b"HTTP/1.1", b"HTTP/1.0") + w.body, CLOSE], RIGHT),
    "odd content type": Fault(lambda w: [head(200, content_type="text/plain", content_length=len(w.body)) + w.body], EITHER),
    "no content type": Fault(lambda w: [head(w.status, content_length=len(w.body)) + w.body], EITHER),
    "headers split": Fault(lambda w: [w.head[:20], 0.02, w.head[20:] + w.body], RIGHT),
    "many headers": Fault(lambda w: [head(w.status, content_type=w.kind, content_length=len(w.body),
                                          **{f"x_{n}": "y" for n in range(40)}) + w.body], RIGHT),
    "100 first": Fault(lambda w: [head(100) + w.head + w.body], RIGHT),
    "102 first": Fault(lambda w: [head(102), 0.02, w.head + w.body], RIGHT),
    "103 first": Fault(lambda w: [head(103, link="</a>; rel=preload") + w.head + w.body], RIGHT),
    "103 many": Fault(lambda w: [head(103) * 20, w.head + w.body], RIGHT),
    "gzip": Fault(coded("gzip", gzip.compress), RIGHT),
    "deflate": Fault(coded("deflate", zlib.compress), RIGHT),
    "identity": Fault(coded("identity", bytes), RIGHT),
    "close after": Fault(lambda w: [w.head + w.body, CLOSE], RIGHT),
    "late end": Fault(lambda w: [w.chunked(), http_chunks(w.body, last=False), 0.05, b"0\r\n\r\n"], RIGHT),
    "extra answer": Fault(lambda w: [w.head + w.body, EXTRA], RIGHT),
    "extra answer at once": Fault(lambda w: [w.head + w.body + EXTRA], RIGHT),
    "extra bytes": Fault(lambda w: [w.head + w.body + b"garbage\r\n\r\n"], RIGHT),
    "extra bytes, chunked": Fault(lambda w: [w.chunked() + http_chunks(w.body) + b"garbage\r\n\r\n"], RIGHT),
    "extra bytes after 103": Fault(lambda w: [head(103) * 2 + w.head + w.body + b"garbage\r\n\r\n"], RIGHT),
    "extra bytes, split": Fault(lambda w: [w.head[:-1], 0.02, w.head[-1:] + w.body + b"\0"], RIGHT),
    "blank lines first": Fault(lambda w: [b"\r\n" + w.head + w.body], EITHER),
    "bare newlines": Fault(lambda w: [w.head.replace(b"\r\n", b"\n") + w.body], EITHER),
    "reset after": Fault(lambda w: [w.head + w.body, 0.05, RESET], EITHER),
    # --- cut, silent, slow
    "no answer": Fault(lambda _: [CLOSE], ERROR),
    "reset": Fault(lambda _: [RESET], ERROR),
    "half a head": Fault(lambda w: [w.head[:25], CLOSE], ERROR),
    "head alone": Fault(lambda w: [w.head, CLOSE], ERROR),
    "reset after head": Fault(lambda w: [w.head, 0.05, RESET], ERROR),
    "cut": Fault(cut(lambda w: w.head + w.half, CLOSE), ERROR),
    "cut by reset": Fault(cut(lambda w: w.head + w.half, RESET), ERROR),
    "cut, chunked": Fault(cut(lambda w: w.chunked() + http_chunks(w.half, last=False), CLOSE), ERROR),
    "cut, close-delimited": Fault(cut(lambda w: head(w.status, content_type=w.kind) + w.half, CLOSE), ERROR),
    "cut in a chunk": Fault(cut(lambda w: w.chunked() + b"%x\r\n" % len(w.body) + w.half, CLOSE), ERROR),
    "empty": Fault(lambda w: [head(200, content_type=w.kind, content_length=0)], ERROR),
    "silent": Fault(lambda _: [HANG], ERROR, SHORT),
    "silent after head": Fault(lambda w: [w.head, HANG], ERROR, SHORT),
    "silent half-way": Fault(lambda w: [w.head + w.half, HANG], ERROR, SHORT),
    "dripping head": Fault(lambda w: [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n", 0.05] * 40], ERROR, SILENT),
    "dripping body": Fault(lambda w: [head(200, content_type=w.kind, content_length=10**6), *[b" ", 0.05] * 40], ERROR, SILENT),
    # --- not HTTP
    "ssh": Fault(lambda _: [b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE], ERROR),
    "binary": Fault(lambda _: [bytes(range(128, 256)) + b"\r\n\r\n", CLOSE], ERROR),
    "bad status": Fault(lambda w: [w.head.replace(b"200", b"2xx") + w.body, CLOSE], ERROR),
    "bad chunk size": Fault(lambda w: [w.chunked(), b"xyz\r\n" + w.body, CLOSE], ERROR),
    "bad chunk end": Fault(lambda w: [w.chunked(), b"3\r\nabcdefgh\r\n0\r\n\r\n", CLOSE], ERROR),
    "both lengths": Fault(lambda w: [w.chunked(content_length=len(w.body)) + http_chunks(w.body), CLOSE], EITHER),
    "two lengths": Fault(lambda w: [w.head[:-2] + b"Content-Length: 3\r\n\r\n" + w.body, CLOSE], EITHER),
    "endless head": Fault(lambda _: [b"HTTP/1.1 200 OK\r\n" + b"X-Filler: yes\r\n" * 20_000, CLOSE], ERROR),
    "interim flood": Fault(lambda _: [head(103) * 2000, CLOSE], ERROR),
    "switching protocols": Fault(lambda _: [head(101, upgrade="h2c", connection="Upgrade"), CLOSE], ERROR),
    # --- coded
    "unknown coding": Fault(coded("x-unknown", bytes), ERROR),
    "compress": Fault(coded("compress", bytes), ERROR),
    "gzip said, plain sent": Fault(coded("gzip", bytes), ERROR),
    "gzip, cut": Fault(coded("gzip", lambda body: gzip.compress(body)[:-9]), EITHER),
    "two codings": Fault(coded("gzip, x-unknown", bytes), ERROR),
    # --- bodies
    "not JSON": Fault(refusal(200, "It works!", "text/plain"), ERROR),
    "a list": Fault(refusal(200, [1, 2]), EITHER),
    "null": Fault(refusal(200, "null"), ERROR),
    "a number of 6,000 digits": Fault(refusal(200, '{"x": ' + "9" * 6000 + "}"), EITHER),
    "deep": Fault(refusal(200, '{"choices":' + "[" * 50_000), ERROR),
    "not UTF-8": Fault(lambda w: [head(200, content_type=w.kind, content_length=4) + b"\xff\xfe\xc3\x28"], ERROR),
    "a page": Fault(refusal(200, PAGE.format("Welcome"), "text/html"), ERROR),
    "error object": Fault(refusal(200, {"error": {"message": "the cat sat down"}}), ERROR),
    "wrong path": Fault(refusal(200, {"error": "Unexpected endpoint or method. (GET /x)"}), ERROR),
    "unknown error event": Fault(events_then(UNKNOWN_EVENT), ERROR),
    "data that is no JSON": Fault(events_then(b"data: {nonsense\n\n"), ERROR),
    "escape codes": Fault(refusal(500, {"error": "\x1b[2J\x1b]52;c;aGk=\x07 gone\r\nINFO forged"}), ERROR),
    # --- refusals
    **{str(status): Fault(refusal(status, {"error": {"message": f"no: {status}"}}), ERROR)
       for status in (400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 502, 503, 504, 524)},
    **{f"{status} page": Fault(refusal(status, PAGE.format(status), "text/html"), ERROR)
       for status in (403, 404, 413, 502, 504, 524)},
    "redirect": Fault(refusal(302, "", "text/plain", location="http://127.0.0.1:9/"), ERROR),
    "no content": Fault(lambda _: [head(204)], EITHER),
    "long retry-after": Fault(refusal(429, {"error": "slow down"}, retry_after="3600"), ERROR),
    "odd retry-after": Fault(refusal(429, {"error": "slow down"}, retry_after="-5, soon"), ERROR),
    "engine loading": Fault(refusal(400, {"error": ENGINE}), ERROR, SILENT),
    "engine gone": Fault(refusal(400, {"error": "fetch failed"}), ERROR),
    "engine exited": Fault(refusal(500, {"error": EXITED}), ERROR),
    "engine error": Fault(refusal(400, {"error": "received prediction-error"}), ERROR),
    "model unknown": Fault(refusal(400, {"error": "Model does not exist"}), ERROR),
    "model not found": Fault(refusal(404, {"error": {"message": 'Cannot find model "m"'}}), ERROR),
    "error without end": Fault(lambda _: [head(500, content_length=10**9), *[b"no! " * 65536] * 20, CLOSE], ERROR),
}  # fmt: skip
