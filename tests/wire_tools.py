"""A deterministic model and a small HTTP client, for tests that talk to the server over a real socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmdeck._encoders.backend_events import Finished
from lmdeck.server.backend import BackendError
from lmdeck.server.jobs import EngineRuntime, Instance, ModelDescription
from lmdeck.server.text_model import TextOnly
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from lmdeck.server.text_model import Generation, Piece

KEY = "parrot-1b"
USER = [{"role": "user", "content": "Hello"}]


class Parrot(TextOnly):
    """A text model that says the pieces it was given; `pause` makes it wait before each of them until it is set."""

    runtime = EngineRuntime(name="parrot", version="1.0")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.pieces: list[str | Exception] = ["Hel", "lo", " there"]
        self.end = Finished(stop_reason="eosFound", prompt_tokens=5, completion_tokens=3)
        self.refusal: BackendError | None = None
        self.pause: threading.Event | None = None
        self.jobs: list[Generation] = []
        self.said: list[str] = []
        self.closed = threading.Event()

    def models(self) -> tuple[ModelDescription, ...]:
        described = ModelDescription(
            key=KEY,
            display_name="Parrot 1B",
            architecture="bird",
            quantization="Q8_0",
            size_bytes=1000,
            max_context_length=4096,
            instances=(Instance(id=KEY, context_length=2048, config={"parallel": 1}),),
        )
        other = ModelDescription(key="embed", display_name="Embed", type="embeddings", max_context_length=512)
        return described, other

    def generate(self, job: Generation) -> AsyncGenerator[Piece, None]:
        self.jobs.append(job)
        if self.refusal is not None:
            raise self.refusal
        return self._say()

    async def _say(self) -> AsyncGenerator[Piece, None]:
        try:
            for piece in self.pieces:
                while self.pause is not None and not self.pause.is_set():  # noqa: ASYNC110  # set by another thread
                    await asyncio.sleep(0.005)
                if isinstance(piece, Exception):
                    raise piece
                self.said.append(piece)
                yield piece
            yield self.end
        finally:
            self.closed.set()


class Answer:
    """A whole answer: status, headers and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def frames(self) -> list[bytes]:
        assert self.body.endswith(b"\n\n")
        return self.body.split(b"\n\n")[:-1]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """Every chunk of a stream that ended well."""
        assert self.status == 200
        *frames, done = self.frames
        assert done == b"data: [DONE]"
        return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk["choices"]]

    @property
    def text(self) -> str:
        return "".join(delta.get("content", "") for delta in self.deltas)


def ask(base_url: str, method: str, path: str, body: bytes | None = None) -> Answer:
    address = urlsplit(base_url)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body is not None else {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def post(base_url: str, path: str, **fields: Any) -> Answer:
    return ask(base_url, "POST", path, json.dumps(fields).encode())


def chat(base_url: str, **fields: Any) -> Answer:
    return post(base_url, "/v1/chat/completions", **{"messages": USER, **fields})


@contextmanager
def asking(base_url: str, path: str = "/v1/chat/completions", **fields: Any) -> Iterator[socket.socket]:
    """Send a request, and leave without waiting for the answer at the end of the block."""
    address = urlsplit(base_url)
    body = json.dumps({"messages": USER, **fields}).encode()
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (path.encode(), len(body))
            + body
        )
        yield connection


def eventually(happened: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
