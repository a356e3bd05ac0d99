"""A loopback server that answers as LM Studio does, from bytes that are made once.

The model's name says what is wanted: `chunks-20000` streams so many chunks as fast as they are read, `paced-50` streams them
one by one with a pause after each, and without `stream` in the request every model gives one whole answer. As LM Studio does,
a stream is sent with `Transfer-Encoding: chunked`, each event an HTTP chunk of its own, and the connection is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator

TEXT = """\
Here is what I found about naïve cafés \u2013 three things:

1. The **first** one, which is short.
2. A second one, with `code` in it and a [link](https://example.org).

```python
def count(sheep: list[str]) -> dict[str, int]:
    return {name: sheep.count(name) for name in sheep if name != "wolf"}
```

As HTML, that is

<ul class="found">
  <li>first &amp; second</li>
  <li><a href="/third">third</a></li>
</ul>

| sheep | count |
|---|---|
| black | 12 |

So there are 12 of them. Shall I go on?

"""
"""Prose, lists, code, HTML and a table, with their line ends: what models write, and what a parser must look at."""
PIECES = re.findall(r"\s?\S{1,7}|\s", TEXT)  # about as long as tokens
WHOLE = TEXT.strip()
BLOCK = 1000  # how many chunks are written at once where no pause is wanted
PAUSE = 0.02
HEAD = {
    "id": "chatcmpl-turc940nek7uo7ucc5536",
    "object": "chat.completion.chunk",
    "created": 1774607296,
    "model": "qwen2.5-7b-instruct",
    "system_fingerprint": "qwen2.5-7b-instruct",
}
USAGE = {"prompt_tokens": 31, "completion_tokens": 22, "total_tokens": 53}


def content_of(chunks: int) -> str:
    """Give the text of a stream of so many chunks."""
    rounds, rest = divmod(chunks, len(PIECES))
    return "".join(PIECES) * rounds + "".join(PIECES[:rest])


def event_of(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """Write one chunk as LM Studio does."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return (
        b"data: %s\n\n" % json.dumps({**HEAD, "choices": [choice]}, ensure_ascii=False, separators=(",", ":")).encode()
    )


def framed(event: bytes) -> bytes:
    """Make an event an HTTP chunk of its own."""
    return b"%x\r\n%s\r\n" % (len(event), event)


FRAMES = [framed(event_of({"role": "assistant", "content": piece})) for piece in PIECES]
CYCLE = b"".join(FRAMES)
END = (
    framed(event_of({}, "stop"))
    + framed(b"data: %s\n\n" % json.dumps({**HEAD, "choices": [], "usage": USAGE}, separators=(",", ":")).encode())
    + framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
BODY = json.dumps(
    {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WHOLE, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "stats": {
            "tokens_per_second": 51.4,
            "time_to_first_token": 0.111,
            "generation_time": 0.95,
            "stop_reason": "eosFound",
        },
    }
).encode()
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nConnection: keep-alive\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


def blocks_of(chunks: int) -> Iterator[bytes]:
    """Give a stream's frames, many at once."""
    cycles = BLOCK // len(FRAMES)
    rounds, rest = divmod(chunks, len(FRAMES))
    while rounds:
        taken = min(cycles, rounds)
        yield CYCLE * taken
        rounds -= taken
    yield b"".join(FRAMES[:rest])


@contextlib.contextmanager
def stub_server() -> Iterator[int]:
    """Run the stub in a process of its own, and yield its port."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int((process.stdout or sys.stdin).readline())
        finally:
            process.terminate()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until the client leaves."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"POST "):  # a look at the list of models
                writer.write(NOT_FOUND)
                continue
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await answer(json.loads(await reader.readexactly(length)), writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(request: dict[str, object], writer: asyncio.StreamWriter) -> None:
    """Write the answer that the request asks for."""
    if not request.get("stream"):
        writer.write(WHOLE_ANSWER)
        return
    way, _, count = str(request["model"]).partition("-")
    writer.write(STREAM_HEAD)
    if way == "paced":
        for position in range(int(count)):
            writer.write(FRAMES[position % len(FRAMES)])
            await asyncio.sleep(PAUSE)
    else:
        for block in blocks_of(int(count)):
            writer.write(block)
            await writer.drain()
    writer.write(END)
    await writer.drain()


async def main() -> None:
    """Serve on a free port, and print it."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
