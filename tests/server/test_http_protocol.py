"""HTTP/1.1 of this package's servers, below ASGI: heads, targets, versions, framing and pipelines of clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from loopback import PATIENCE, read_all

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST
POST = b"POST /a HTTP/1.1\r\n" + HOST
PLAIN_END = GET + CLOSE + b"\r\n"


async def report(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the server read; at `/slow` only once `GO` is set."""
    body, has_more = b"", True
    while has_more and scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.to_thread(GO.wait, PATIENCE)
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    seen = {"method": scope["method"], "path": scope["path"], "query": scope["query_string"].decode()}
    text = json.dumps({**seen, "headers": headers, "body": body.decode("latin-1")}).encode()
    framing = [(b"content-length", b"%d" % len(text))] if scope["path"] == "/known" else []
    await send({"type": "http.response.start", "status": 200, "headers": framing})
    await send({"type": "http.response.body", "body": text[:10], "more_body": True})
    await send({"type": "http.response.body", "body": text[10:], "more_body": False})


GO = threading.Event()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with BackgroundServer(report, listen()) as server:
        url = urlsplit(server.base_url)
        yield str(url.hostname), url.port or 0


class Received:
    """Everything that a server sent until it closed the connection."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            if status == 100:
                self.statuses.append(100)
                continue
            body, data = self._body(head.lower(), data)
            self.statuses.append(status)
            self.heads.append(head.lower())
            self.bodies.append(body)

    @staticmethod
    def _body(head: bytes, data: bytes) -> tuple[bytes, bytes]:
        if b"transfer-encoding: chunked" in head:
            body = b""
            while True:
                size, _, data = data.partition(b"\r\n")
                count = int(size, 16)
                body, data = body + data[:count], data[count + 2 :]
                if not count:
                    return body, data
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line[:15] == b"content-length:"), None
        )
        return (data, b"") if length is None else (data[:length], data[length:])

    @property
    def seen(self) -> list[Any]:
        """What the application reported."""
        return [json.loads(body) for body in self.bodies]


def exchange(address: tuple[str, int], *pieces: bytes) -> Received:
    """Send the pieces, and return what came until the server closed the connection."""
    with socket.create_connection(address, PATIENCE) as client:
        for piece in pieces:
            client.sendall(piece)
        return Received(read_all(client))


WRONG = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "lone line feeds": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400),
    "folded header": (GET + b"X-Folded: a\r\n b\r\n\r\n", 400),
    "null in a value": (GET + b"X-Null: a\x00b\r\n\r\n", 400),
    "null in a name": (GET + b"X\x00Null: ab\r\n\r\n", 400),
    "no name": (GET + b": a\r\n\r\n", 400),
    "blank before the colon": (POST + b"Content-Length : 2\r\n\r\n{}", 400),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + HOST + b"\r\n", 400),
    "two equal lengths": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\n{}{}", 400),
    "list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "signed length": (POST + b"Content-Length: +2\r\n\r\n{}", 400),
    "huge length": (POST + b"Content-Length: %d\r\n\r\n" % 10**30, 400),
    "length and chunks": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "wrong chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n", 400),
    "offer and wrong chunk": (
        POST + b"Connection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        400,
    ),
    "target without a path": (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target of the whole server": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target of another host": (b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "target with a password": (b"GET http://a:b@localhost/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "start of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "CONNECT": (b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "unknown method": (b"FETCH / HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "long line": (GET + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "long target": (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    "many headers": (GET + b"X-Many: xxxx\r\n" * 5_000 + b"\r\n", 431),
    "endless headers": (GET + b"X-Many: xxxx\r\n" * 7_000, 431),
    "endless trailers": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"X-Many: xxxx\r\n" * 50_000,
        431,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_refused_once(address: tuple[str, int], case: str) -> None:
    """It may be the second request of a connection; the first one is answered."""
    request_bytes, status = WRONG[case]
    alone = exchange(address, request_bytes)
    assert alone.statuses == [status]
    assert json.loads(alone.bodies[0])["error"]["message"]
    assert b"connection: close" in alone.heads[0]
    after_another = exchange(address, GET + b"\r\n" + request_bytes)
    assert after_another.statuses == [200, status]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b=%20", "/a", "b=%20"),
        (b"/%C3%A9//x", "/é//x", ""),
        (b"http://localhost/a?b", "/a", "b"),
        (b"HTTP://localhost", "/", ""),
        (b"http://localhost?b", "/", "b"),
    ],
)
def test_a_target_is_a_path_or_a_url(address: tuple[str, int], target: bytes, path: str, query: str) -> None:
    read = exchange(address, b"GET " + target + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n").seen[0]
    assert (read["path"], read["query"]) == (path, query)


@pytest.mark.parametrize("path", [b"/a", b"/known"])
@pytest.mark.parametrize("keeps", [b"", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
def test_http_1_0_gets_no_chunks_and_its_connection_ends(
    address: tuple[str, int], method: bytes, keeps: bytes, path: bytes
) -> None:
    body = b"{}" if method == b"POST" else b""
    expects = b"Expect: 100-continue\r\nContent-Length: 2\r\n" if body else b""
    answer = exchange(address, method + b" " + path + b" HTTP/1.0\r\n" + keeps + expects + b"\r\n" + body)
    assert answer.statuses == [200]
    assert b"transfer-encoding" not in answer.heads[0]
    if method == b"HEAD":
        assert answer.data.endswith(b"\r\n\r\n")
    else:
        assert answer.seen[0]["body"] == body.decode()


def test_requests_sent_at_once_are_answered_in_order(address: tuple[str, int]) -> None:
    bodies = [b"Content-Length: 3\r\n\r\none", b"Transfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX-Late: a\r\n\r\n"]
    answer = exchange(address, b"".join([POST + body for body in bodies] * 10) + PLAIN_END)
    assert [each["body"] for each in answer.seen] == ["one", "two"] * 10 + [""]
    assert not any("x-late" in each["headers"] for each in answer.seen)


def test_the_number_of_requests_sent_at_once_is_limited(address: tuple[str, int]) -> None:
    assert exchange(address, (GET + b"\r\n") * 500).statuses == [200] * 65 + [503]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0, x"])
@pytest.mark.parametrize(
    "body", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"]
)
def test_the_offer_of_another_protocol_is_ignored(address: tuple[str, int], offer: bytes, body: bytes) -> None:
    """However the bytes arrive; what follows is the next request."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMA\r\n" % offer
    request = POST + upgrade + body
    for pieces in ([request * 2 + PLAIN_END], [request, request, PLAIN_END], [request[:70], request[70:], PLAIN_END]):
        answer = exchange(address, *pieces)
        assert [each["body"] for each in answer.seen] == ["body"] * (len(answer.seen) - 1) + [""]
        assert answer.seen[0]["headers"]["upgrade"] == offer.decode()
    without_body = exchange(address, GET + upgrade + b"\r\n" + PLAIN_END)
    assert without_body.statuses == [200, 200]


def test_a_body_that_waits_for_permission_gets_it(address: tuple[str, int]) -> None:
    head = POST + CLOSE + b"Expect: 100-Continue\r\nContent-Length: 4\r\n\r\n"
    with socket.create_connection(address, PATIENCE) as client:
        client.sendall(head)
        assert client.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert Received(read_all(client)).seen[0]["body"] == "body"


def test_an_answer_before_the_end_of_the_body_ends_the_connection(address: tuple[str, int]) -> None:
    """The client may not send the rest, which would be read as the next request."""
    answer = exchange(address, POST.replace(b"/a", b"/early") + b"Content-Length: 99\r\n\r\nbody")
    assert answer.statuses == [200]


def test_a_refusal_waits_for_the_answers_before_it(address: tuple[str, int]) -> None:
    GO.clear()
    wrong_head = b"GET / HTTP/9.9\r\n\r\n"
    wrong_body = POST + b"Transfer-Encoding: chunked\r\n\r\nx"
    for wrong in (wrong_head, wrong_body, GET + b"\r\n" + wrong_body):
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(GET.replace(b"/a", b"/slow") + b"\r\n")
            client.sendall(wrong)
            threading.Timer(0.1, GO.set).start()
            assert Received(read_all(client)).statuses[-2:] == [200, 400]
        GO.clear()


WITHOUT = """
import sys
sys.modules["httptools"] = None
from lmdeck.testing import FakeLMStudio
with FakeLMStudio() as fake:
    fake.reply("Hello")
    chat = fake.client().chat().user("Hi")
    print(chat.send().content, "h11" in sys.modules)
"""


def test_servers_start_without_httptools() -> None:
    """Some platforms have no wheels of it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split() == ["Hello", "True"]
