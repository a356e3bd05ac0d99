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

__all__ = ["EITHER", "ERROR", "FAULTS", "GROUPS", "RIGHT", "TOKEN", "TWINS", "Fault", "Whole"]

RIGHT, ERROR, EITHER = "right", "error", "either"
SHORT = {"timeout": 0.3, "first_token_timeout": 0.4}
SILENT = {"total_timeout": 0.5}
TOKEN = "sk-lm-secret-of-the-matrix"


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
    """A fault: what it sends, how the operation must end, and the limits that it needs.

    With `first`, only so many requests are answered so, and the following ones rightly. With `is_slow_look_up`, it is the name
    server that does not answer.
    """

    steps: Callable[[Whole], list[Step]]
    verdict: str
    limits: dict[str, Any] = field(default_factory=dict)
    first: int | None = None
    is_slow_look_up: bool = False


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


def in_two_writes(fault: Callable[[Whole], list[Step]]) -> Callable[[Whole], list[Step]]:
    """Return a fault that sends the same bytes, but its last event apart from what precedes it."""

    def steps(whole: Whole) -> list[Step]:
        [sent] = fault(whole)
        assert isinstance(sent, bytes)
        before = sent.rstrip().rfind(b"\n\n") + 2
        return [sent[:before], 0.02, sent[before:]]

    return steps


def events_as(change: Callable[[bytes], bytes]) -> Callable[[Whole], list[Step]]:
    """Return a fault that writes the events of a stream in another way; other answers are right."""

    def steps(whole: Whole) -> list[Step]:
        return [whole.chunked(), http_chunks(change(whole.body) if whole.is_stream else whole.body)]

    return steps


def after_the_end(*more: Step) -> Callable[[Whole], list[Step]]:
    """Return a fault that follows the last event of a stream, which is then left open; other answers are right."""

    def steps(whole: Whole) -> list[Step]:
        if not whole.is_stream:
            return [whole.head + whole.body]
        return [whole.chunked(), http_chunks(whole.body, last=False), *more, HANG]

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
ENGINE_CODE = (
    'Engine protocol predict request returned an error: {"code":500,"message":"decode: failed to decode, ret = -3"}'
)
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
BATCH = "input is too large to process. increase the physical batch size"
UNKNOWN_EVENT = b'event: error\ndata: {"error": {"message": "something broke that nobody has a name for"}}\n\n'
EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

HARMLESS: dict[str, Fault] = {
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
    "201": Fault(lambda w: [w.head.replace(b"200", b"201") + w.body], RIGHT),
    "no reason": Fault(lambda w: [w.head.replace(b" Said", b"") + w.body], RIGHT),
    "long header": Fault(lambda w: [w.head[:-2] + b"X-Filler: " + b"y" * 30_000 + b"\r\n\r\n" + w.body], RIGHT),
    "upgrade offered": Fault(lambda w: [w.head[:-2] + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + w.body], RIGHT),
    "odd case": Fault(lambda w: [w.head.swapcase().replace(b"http/1.1", b"HTTP/1.1") + w.body], RIGHT),
    "CRLF in events": Fault(events_as(lambda body: body.replace(b"\n", b"\r\n")), RIGHT),
    "CR in events": Fault(events_as(lambda body: body.replace(b"\n", b"\r")), RIGHT),
    "comments, ids": Fault(events_as(lambda body: b": hi\nretry: 9\n\n" + body.replace(b"data:", b"id: 1\n:\ndata:")), RIGHT),
    "byte order mark": Fault(events_as(lambda body: b"\xef\xbb\xbf" + body), RIGHT),
    "heartbeats": Fault(lambda w: [w.chunked(), *[http_chunks(b" \n", last=False), 0.01] * 5, http_chunks(w.body)], RIGHT),
    "never closed": Fault(after_the_end(), RIGHT),
    "pings after the end": Fault(after_the_end(*[0.01, http_chunks(b": ping\n\n", last=False)] * 20), RIGHT),
    "503 loading, then right": Fault(refusal(503, LOADING), RIGHT, first=2),
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
}  # fmt: skip
CUT_OR_SILENT: dict[str, Fault] = {
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
    "slow look-up": Fault(lambda _: [HANG], ERROR, {"connect_timeout": 0.3}, is_slow_look_up=True),
    "dripping head": Fault(lambda w: [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n", 0.05] * 40], ERROR, SILENT),
    "dripping body": Fault(lambda w: [head(200, content_type=w.kind, content_length=10**6), *[b" ", 0.05] * 40], ERROR, SILENT),
}  # fmt: skip
NOT_HTTP: dict[str, Fault] = {
    "ssh": Fault(lambda _: [b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE], ERROR),
    "binary": Fault(lambda _: [bytes(range(128, 256)) + b"\r\n\r\n", CLOSE], ERROR),
    "bad status": Fault(lambda w: [w.head.replace(b"200", b"2xx") + w.body, CLOSE], ERROR),
    "bare returns": Fault(lambda w: [w.head.replace(b"\r\n", b"\r") + w.body, CLOSE], ERROR),
    "no length": Fault(lambda w: [w.head.replace(b"length: ", b"length: x") + w.body, CLOSE], ERROR),
    "unknown framing": Fault(lambda w: [w.head[:-2] + b"Transfer-Encoding: xyz\r\n\r\n" + w.body, CLOSE], ERROR),
    "bad chunk size": Fault(lambda w: [w.chunked(), b"xyz\r\n" + w.body, CLOSE], ERROR),
    "bad chunk end": Fault(lambda w: [w.chunked(), b"3\r\nabcdefgh\r\n0\r\n\r\n", CLOSE], ERROR),
    "both lengths": Fault(lambda w: [w.chunked(content_length=len(w.body)) + http_chunks(w.body), CLOSE], EITHER),
    "two lengths": Fault(lambda w: [w.head[:-2] + b"Content-Length: 3\r\n\r\n" + w.body, CLOSE], ERROR),
    "endless head": Fault(lambda _: [b"HTTP/1.1 200 OK\r\n" + b"X-Filler: yes\r\n" * 20_000, CLOSE], ERROR),
    "interim flood": Fault(lambda _: [head(103) * 2000, CLOSE], ERROR),
    "switching protocols": Fault(lambda _: [head(101, upgrade="h2c", connection="Upgrade"), CLOSE], ERROR),
}  # fmt: skip
CODED: dict[str, Fault] = {
    "unknown coding": Fault(coded("x-unknown", bytes), ERROR),
    "compress": Fault(coded("compress", bytes), ERROR),
    "gzip said, plain sent": Fault(coded("gzip", bytes), ERROR),
    "gzip, cut": Fault(coded("gzip", lambda body: gzip.compress(body)[:-9]), EITHER),
    "two codings": Fault(coded("gzip, x-unknown", bytes), ERROR),
}  # fmt: skip
BODIES: dict[str, Fault] = {
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
    "unknown error event, apart": Fault(in_two_writes(events_then(UNKNOWN_EVENT)), ERROR),
    "data that is no JSON": Fault(events_then(b"data: {nonsense\n\n"), ERROR),
    "data that is no JSON, apart": Fault(in_two_writes(events_then(b"data: {nonsense\n\n")), ERROR),
    "escape codes": Fault(refusal(500, {"error": "\x1b[2J\x1b]52;c;aGk=\x07 gone\r\nINFO forged"}), ERROR),
}  # fmt: skip
REFUSALS: dict[str, Fault] = {
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
    "engine code 500": Fault(refusal(400, {"error": ENGINE_CODE}), ERROR),
    "shapes": Fault(refusal(500, {"error": "[broadcast_shapes] Shapes (1,4) and (1,3) cannot be broadcast."}), ERROR),
    "batch size": Fault(refusal(500, {"error": {"message": BATCH, "code": 500}}), ERROR),
    "503 loading": Fault(refusal(503, LOADING), ERROR, SILENT),
    "response gone": Fault(refusal(400, {"error": {"message": "Previous response with id 'resp_1' not found."}}), ERROR),
    "plugin denied": Fault(refusal(403, {"error": {"message": "Permission denied to use plugin 'mcp/x'."}}), ERROR),
    "token quoted": Fault(refusal(401, {"error": {"message": f"Malformed API token: Bearer {TOKEN}"}}), ERROR),
    "token in a page": Fault(refusal(403, PAGE.format(f"403 {TOKEN}"), "text/html"), ERROR),
    "model unknown": Fault(refusal(400, {"error": "Model does not exist"}), ERROR),
    "model not found": Fault(refusal(404, {"error": {"message": 'Cannot find model "m"'}}), ERROR),
    "500 in broken gzip": Fault(refusal(500, "no gzip", content_encoding="gzip"), ERROR),
    "500 in broken chunks": Fault(lambda _: [head(500, transfer_encoding="chunked") + b"xyz\r\n", CLOSE], ERROR),
    "error without end": Fault(lambda _: [head(500, content_length=10**9), *[b"no! " * 65536] * 20, CLOSE], ERROR),
}  # fmt: skip
GROUPS = {
    "harmless": HARMLESS,
    "cut, silent or slow": CUT_OR_SILENT,
    "not HTTP": NOT_HTTP,
    "content codings": CODED,
    "bodies": BODIES,
    "refusals": REFUSALS,
}
FAULTS = {name: fault for group in GROUPS.values() for name, fault in group.items()}
TWINS = {"unknown error event": "unknown error event, apart", "data that is no JSON": "data that is no JSON, apart"}
"""Faults of the same bytes in one and in two writes, which must end alike."""
