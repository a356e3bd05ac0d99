"""A loopback server that answers as LM Studio does, with prepared bytes.

The name of the model chooses the answer: `chunks-20000` streams that many chunks as fast as they are read, `tool-5000` one tool
call in that many deltas, `single-50` each chunk with a write of its own, `paced-50` the same at a rate of 100 a second,
`open-15` paced chunks and then silence until the client leaves. Without `stream` in the request every model gives one whole
answer. As LM Studio does, a stream is sent with `Transfer-Encoding: chunked`, each event an HTTP chunk of its own, and the
connection is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import Any

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
ESCAPED = [json.dumps(piece, ensure_ascii=False)[1:-1] for piece in PIECES]  # as parts of a JSON text
WHOLE = TEXT.strip()
BLOCK = 1000  # how many chunks are written at once where no pause is wanted
RATE = 100  # paced chunks a second
HEAD = {
    "id": "chatcmpl-turc940nek7uo7ucc5536",
    "object": "chat.completion.chunk",
    "created": 1774607296,
    "model": "qwen2.5-7b-instruct",
    "system_fingerprint": "qwen2.5-7b-instruct",
}
USAGE = {"prompt_tokens": 31, "completion_tokens": 22, "total_tokens": 53}


def content_of(chunks: int) -> str:
    """Return the text of a stream of that many chunks."""
    rounds, rest = divmod(chunks, len(PIECES))
    return "".join(PIECES) * rounds + "".join(PIECES[:rest])


def arguments_of(deltas: int) -> str:
    """Return the arguments of a tool call of so many deltas: an object with one long text."""
    return "".join(argument_pieces(deltas))


def argument_pieces(deltas: int) -> Iterator[str]:
    """Yield the arguments in pieces of the size of tokens."""
    yield '{"text": "'
    yield from islice(cycle(ESCAPED), deltas - 2)
    yield '"}'


def event_of(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
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
AFTER = (
    framed(b"data: %s\n\n" % json.dumps({**HEAD, "choices": [], "usage": USAGE}, separators=(",", ":")).encode())
    + framed(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
END = framed(event_of({}, "stop")) + AFTER
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
    """Yield the frames of a stream, many at once."""
    cycles = BLOCK // len(FRAMES)
    rounds, rest = divmod(chunks, len(FRAMES))
    while rounds:
        taken = min(cycles, rounds)
        yield CYCLE * taken
        rounds -= taken
    yield b"".join(FRAMES[:rest])


def allow_sockets(wanted: int) -> None:
    """Let this process hold that many open files, as far as the system allows."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(hard, wanted), hard)
        )


@cache
def tool_frames(deltas: int) -> bytes:
    """Return the frames of a tool call, to its finish reason."""
    named = {"index": 0, "id": "365174485", "type": "function", "function": {"name": "write", "arguments": ""}}
    calls = [named, *({"index": 0, "function": {"arguments": piece}} for piece in argument_pieces(deltas))]
    return b"".join([*(framed(event_of({"tool_calls": [call]})) for call in calls), framed(event_of({}, "tool_calls"))])


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
            if not head.startswith(b"POST "):  # a request for the model list
                writer.write(NOT_FOUND)
                continue
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await answer(json.loads(await reader.readexactly(length)), reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(request: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write the answer that the request asks for."""
    if not request.get("stream"):
        writer.write(WHOLE_ANSWER)
        return
    way, _, count = str(request["model"]).partition("-")
    writer.write(STREAM_HEAD)
    await WAYS[way](int(count), reader, writer)
    await writer.drain()


async def write_at_once(chunks: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a stream as fast as it is read."""
    for block in blocks_of(chunks):
        writer.write(block)
        await writer.drain()
    writer.write(END)


async def write_call(deltas: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a tool call as fast as it is read."""
    writer.write(tool_frames(deltas) + AFTER)


async def write_paced(chunks: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a stream, each chunk when it is due."""
    await write_in_turn(chunks, writer)
    writer.write(END)


async def write_and_wait(chunks: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write some chunks, and leave the stream open until the client closes it."""
    await write_in_turn(chunks, writer)
    await reader.read()


async def write_singly(chunks: int, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write a stream without pauses, but each chunk for itself."""
    await write_in_turn(chunks, writer, rate=float("inf"))
    writer.write(END)


async def write_in_turn(chunks: int, writer: asyncio.StreamWriter, rate: float = RATE) -> None:
    """Write one chunk after the other, each when it is due."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for position in range(chunks):
        writer.write(FRAMES[position % len(FRAMES)])
        await asyncio.sleep(max(0.0, began + (position + 1) / rate - loop.time()))


WAYS = {
    "chunks": write_at_once,
    "tool": write_call,
    "paced": write_paced,
    "single": write_singly,
    "open": write_and_wait,
}


async def main() -> None:
    """Serve on a free port, and print it."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    allow_sockets(20_000)
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
