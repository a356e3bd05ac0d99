"""A response cache as one handler: equal requests with temperature 0 or a seed are answered from memory."""

import hashlib
import json
from collections.abc import Mapping

import lmdeck
from lmdeck.handlers import Call, Handler, Plan, R, ResponseStream, StreamObserver

ANSWERS: dict[str, tuple[int, Mapping[str, str], bytes]] = {}


class Cache:
    """Answer a repeated call from memory; store the bytes of each complete answer."""

    def __init__(self, inner: Handler) -> None:
        self.inner = inner

    def __call__(self, call: Call[R]) -> Plan[ResponseStream[R]]:
        body = json.loads(call.request.body or b"{}")
        if body.get("temperature") != 0 and "seed" not in body:
            return (yield from self.inner(call))
        key = hashlib.sha256(call.request.url.encode() + b" " + (call.request.body or b"")).hexdigest()
        if key in ANSWERS:
            status, headers, data = ANSWERS[key]
            return ResponseStream.replay(call, status, headers, data)
        stream = yield from self.inner(call)
        stream.observe(Recorder(key, stream))
        return stream


class Recorder(StreamObserver):
    """Collect the bytes of one answer, and store them once it is complete."""

    def __init__(self, key: str, stream: ResponseStream[R]) -> None:
        self.key = key
        self.response = stream.response
        self.data = b""

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_finished(self) -> None:
        ANSWERS[self.key] = (self.response.status, dict(self.response.headers), self.data)


if __name__ == "__main__":
    with lmdeck.LMStudio(handlers=[Cache]) as client:
        chat = client.chat().user("Name a colour.").with_options(temperature=0)
        for _ in range(2):
            reply = chat.send()
            print(reply.content, f"{reply.stats.generation_time or 0:.2f} s")
