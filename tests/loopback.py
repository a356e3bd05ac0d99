"""A server on a loopback port that does exactly what a test scripts: raw bytes, pauses, silence, resets.

An answer is a list of steps, or a function from the request to one (a generator may do). A step is bytes to send, a number of
seconds to wait, or one of `HANG`, `CLOSE` and `RESET`. Each request takes the next answer; the last one is given for ever.
After its steps the connection waits for the next request, as HTTP/1.1 does.

    with Loopback(events("Hi"), json_answer({...}), [RESET]) as server:
        ... server.url, server.requests, server.connections
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import struct
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Self

import bodies
from bodies import completion

__all__ = [
    "CLOSE",
    "DONE",
    "HANG",
    "PATIENCE",
    "RESET",
    "SSE_HEAD",
    "Connection",
    "Loopback",
    "Request",
    "chunk",
    "completion",
    "endless",
    "event",
    "events",
    "head",
    "hello",
    "http_chunks",
    "json_answer",
    "read_all",
    "text_answer",
]

PATIENCE = 60.0
"""Seconds that a test waits for something to happen. It says when to give up, and measures nothing: a busy machine is slow."""


class End(Enum):
    """What ends an answer, and with it the connection."""

    HANG = auto()  # say nothing more until the peer leaves or the server is closed
    CLOSE = auto()  # close as usual
    RESET = auto()  # close with a TCP reset


HANG, CLOSE, RESET = End.HANG, End.CLOSE, End.RESET
Step = bytes | float | End
Steps = Iterable[Step]


@dataclass
class Request:
    """A request as it was received; `connection` counts the connections from 0, `headers` have lower-case names."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


Answer = Steps | Callable[[Request], Steps]


class Connection:
    """One connection: how much was sent on it, and when it was over."""

    def __init__(self, number: int, sock: socket.socket, stop: socket.socket) -> None:
        self.number = number
        self.sent = 0
        self.read_after = 0.0  # how long the body of a request waits to be read
        self.left_at: float | None = None
        self.has_left = threading.Event()
        self._sock = sock
        self._stop = stop

    def wait_left(self, seconds: float = PATIENCE) -> None:
        """Wait until the connection is over."""
        assert self.has_left.wait(seconds), f"connection {self.number} is still open after {seconds} s"

    def requests(self) -> Iterator[Request]:
        """Read requests until the peer leaves."""
        file = self._sock.makefile("rb")
        with file:
            while line := self._line(file):
                words = line.decode("latin-1").split()
                method, path = [*words, "", ""][:2]
                headers: dict[str, str] = {}
                while field := self._line(file).strip():
                    name, _, value = field.decode("latin-1").partition(":")
                    headers[name.strip().lower()] = value.strip()
                if self.read_after:
                    time.sleep(self.read_after)
                body = file.read(int(headers.get("content-length", 0)))
                yield Request(self.number, method, path, headers, body)

    def perform(self, steps: Steps) -> bool:
        """Take the steps; tell whether the connection goes on."""
        for step in steps:
            match step:
                case bytes():
                    self.send(step)
                case End.HANG:
                    self.pause(None)
                    return False
                case End.CLOSE:
                    return False
                case End.RESET:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return False
                case _:
                    self.pause(step)
        return True

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._sock.sendall(data)
        self.sent += len(data)

    def wait_received(self) -> None:
        """Wait until the peer's system has received all that was sent, if it tells, or the connection is over."""
        Loopback.until(lambda: self.has_left.is_set() or not unreceived(self._sock))

    def pause(self, seconds: float | None) -> None:
        """Wait, but no longer than the peer does."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self._sock, self._stop], [], [], None if until is None else left)
            if self._stop in ready:
                raise ConnectionAbortedError("the server is being closed")
            if self._sock in ready and not self._sock.recv(1):
                raise ConnectionResetError("the peer left")

    def note_left(self) -> None:
        """Note that the connection is over."""
        if self.left_at is None:
            self.left_at = time.monotonic()
        self.has_left.set()

    @staticmethod
    def _line(file: Any) -> bytes:
        line: bytes = file.readline(65536)
        return line


class Loopback:
    """The server; a context manager that leaves no thread and no socket behind."""

    def __init__(
        self,
        *answers: Answer,
        routes: dict[str, Answer] | None = None,
        greeting: Steps | None = None,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self._answers = list(answers)
        self._routes = routes or {}
        self._greeting = greeting
        self._tls = tls
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._wake, self._stop = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._spawn(self._accept)

    def add(self, *answers: Answer) -> None:
        """Put further answers behind those that are left; the one that was given for ever no longer is."""
        with self._lock:
            self._answers.extend(answers)

    def connection(self, number: int = 0) -> Connection:
        """Return a connection, waiting for it to be made."""
        self.until(lambda: len(self.connections) > number)
        return self.connections[number]

    def wait_requests(self, count: int) -> None:
        """Wait until so many requests were received."""
        self.until(lambda: len(self.requests) >= count)

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.002)

    def close(self) -> None:
        """End every connection and every thread."""
        self._wake.close()
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a server thread hangs"
        self._stop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="loopback", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):  # the listener was closed: `_stop` says so next
                ready, _, _ = select.select([self._listener, self._stop], [], [])
                if self._stop not in ready:
                    sock, _ = self._listener.accept()
                    self._spawn(self._converse, sock)
                    continue
            return

    def _converse(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.append(sock)
            connection = Connection(len(self.connections), sock, self._stop)
            self.connections.append(connection)
        try:
            if self._tls is not None:
                connection._sock = sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._sockets.append(sock)
                sock.do_handshake()
            if self._greeting is not None and not connection.perform(self._greeting):
                return
            for request in connection.requests():
                with self._lock:
                    self.requests.append(request)
                    answer = self._answer_to(request)
                if not connection.perform(answer(request) if callable(answer) else answer):
                    return
        except OSError:
            pass  # the peer is gone
        finally:
            sock.close()
            connection.note_left()

    def _answer_to(self, request: Request) -> Answer:
        for name in (f"{request.method} {request.path}", request.path):
            if name in self._routes:
                return self._routes[name]
        if not self._answers:
            return text_answer("no such path", status=404)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def unreceived(sock: socket.socket) -> int:
    """Return how many bytes sent on a socket the peer's system has not acknowledged; 0 on systems that do not tell."""
    if sys.platform != "linux":
        return 0
    import fcntl
    import termios

    count = array("i", [0])
    with contextlib.suppress(OSError, ValueError):  # the socket is closed
        fcntl.ioctl(sock, termios.TIOCOUTQ, count)
    return count[0]


def head(status: int = 200, **headers: object) -> bytes:
    """Return a head; `content_type=…` names the header `Content-Type`."""
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "\r\n"]).encode()


def json_answer(body: object, status: int = 200, **headers: object) -> list[Step]:
    """Return a JSON answer with its length."""
    return text_answer(json.dumps(body), status, content_type="application/json", **headers)


def text_answer(
    text: str | bytes, status: int = 200, *, content_type: str = "text/plain", **headers: object
) -> list[Step]:
    """Return an answer with its length."""
    data = text.encode() if isinstance(text, str) else text
    return [head(status, content_type=content_type, content_length=len(data), **headers) + data]


def event(data: object) -> bytes:
    """Return one server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Return the event of one chunk of a stream."""
    return event(bodies.chunk(content, finish, **more))


DONE = event(b"[DONE]")


def http_chunks(*pieces: bytes, last: bool = True) -> bytes:
    """Put pieces into HTTP's chunked coding."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return coded + (b"0\r\n\r\n" if last else b"")


SSE_HEAD = head(content_type="text/event-stream", transfer_encoding="chunked")


def events(*contents: str, finish: str | None = "stop", done: bool = True) -> list[Step]:
    """Return a whole streamed answer, as LM Studio frames it: each event in a separate HTTP chunk."""
    pieces = [chunk(content) for content in contents or ("Hel", "lo.")]
    if finish is not None:
        pieces.append(chunk(finish=finish))
    if done:
        pieces.append(DONE)
    return [SSE_HEAD, http_chunks(*pieces)]


def hello(request: Request) -> list[Step]:
    """Answer a chat as it was asked, streamed or not."""
    return events("Hel", "lo.") if request.json.get("stream") else json_answer(completion("Hello."))


def endless(_: Request) -> Iterator[Step]:
    """Answer a chat with words that never end."""
    yield SSE_HEAD
    while True:
        yield http_chunks(chunk("la "), last=False)
        yield 0.01


def read_all(client: socket.socket) -> bytes:
    """Return everything up to the end or the reset of a connection."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
