"""The stream, or the body, goes wrong; or it is only odd, and right all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lmdeck._streaming.sse import encode_comment, encode_event
from lmdeck.testing import frames
from lmdeck.testing.faults.declaration import fault, pass_on, pass_some

if TYPE_CHECKING:
    from lmdeck.testing.connection import Parts, Wire

_LONG_LINE = 9 << 20


@fault("error")
async def stall(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """After some chunks nothing more comes, and the connection stays open."""
    await pass_some(wire, answer, after_chunks)
    await wire.gone()


@fault("error")
async def reset(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """The connection is reset after some chunks."""
    await pass_some(wire, answer, after_chunks)
    await asyncio.sleep(0.05)  # a reset takes what was not read yet with it
    await wire.reset()


@fault("error")
async def cut(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """The connection is closed after some chunks, the answer unfinished: the server was ended."""
    await pass_some(wire, answer, after_chunks)
    await wire.close()


@fault("error")
async def early_end(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """The stream ends in good order after some chunks, without a finish reason: what proxies make of a cut."""
    if not answer.is_stream:
        body = await answer.all()
        await wire.answer(answer.status, body[: len(body) // 2])
        return
    await pass_some(wire, answer, after_chunks)
    await wire.end()


@fault("error")
async def half_chunk(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """The stream ends in the middle of an event."""
    if not answer.is_stream:
        await early_end(wire, answer)
        return
    await pass_some(wire, answer, after_chunks)
    rest = await anext(aiter(answer), b"data: {")
    await wire.exactly(rest[: len(rest) // 2])
    await wire.end()


@fault("error")
async def garbage(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """Random bytes come after some chunks."""
    await pass_some(wire, answer, after_chunks)
    await wire.exactly(b"data: " + bytes(wire.rng.choices(range(1, 256), k=64)) + b"\n\n")
    await (wire.end() if answer.is_stream else wire.close())


@fault("error")
async def bad_json(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """An event holds broken JSON."""
    if not answer.is_stream:
        await wire.answer(200, b'{"id": "chatcmpl-1", "choices": [{"index": 0,}')
        return
    await pass_some(wire, answer, after_chunks)
    await wire.exactly(encode_event(b'{"choices":[{"index":0,"delta":{"content":'))
    await wire.end()


@fault("error")
async def invalid_utf8(wire: Wire, answer: Parts, *, after_chunks: int = 3) -> None:
    """An event holds bytes that are no UTF-8."""
    if not answer.is_stream:
        await wire.answer(200, b'{"id": "\xff\xfe", "choices": []}')
        return
    await pass_some(wire, answer, after_chunks)
    await wire.exactly(b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xfa"}}]}\n\n')
    await wire.end()


@fault("error")
async def long_line(wire: Wire, answer: Parts) -> None:
    """A single line of nine megabytes comes."""
    await wire.head(200, [(b"content-type", b"text/event-stream")] if answer.is_stream else answer.without_length())
    for _ in range(_LONG_LINE >> 16):
        await wire.exactly(b"x" * (1 << 16))
    await wire.end()


@fault("right")
async def trickle(wire: Wire, answer: Parts) -> None:
    """Every byte comes by itself."""
    await wire.head(answer.status, answer.headers)
    async for data in answer:
        for at in range(len(data)):
            await wire.exactly(data[at : at + 1])
    await wire.end()


@fault("right")
async def one_piece(wire: Wire, answer: Parts) -> None:
    """The whole stream comes at once: a proxy has buffered it."""
    body = await answer.all()
    await wire.head(answer.status, answer.headers)
    await wire.exactly(body)
    await wire.end()


@fault("right")
async def keepalives(wire: Wire, answer: Parts) -> None:
    """Comments come between the events."""
    if not answer.is_stream:
        await pass_on(wire, answer, bytes)
        return
    await pass_on(wire, answer, lambda data: encode_comment("keep-alive") + data)


@fault("right")
async def crlf(wire: Wire, answer: Parts) -> None:
    """Lines end with carriage return and line feed."""
    await pass_on(wire, answer, lambda data: data.replace(b"\n", b"\r\n") if answer.is_stream else data)


@fault("right")
async def byte_order_mark(wire: Wire, answer: Parts) -> None:
    """The answer begins with a byte order mark."""
    await wire.head(answer.status, answer.without_length())
    await wire.exactly(b"\xef\xbb\xbf")
    async for data in answer:
        await wire.body(data)
    await wire.end()


@fault("right")
async def wrong_content_type(wire: Wire, answer: Parts) -> None:
    """The answer is called plain text."""
    await wire.head(answer.status, [(b"content-type", b"text/plain")])
    async for data in answer:
        await wire.body(data)
    await wire.end()


@fault("right")
async def no_done(wire: Wire, answer: Parts) -> None:
    """The stream ends behind its finish reason, without its end mark."""
    await pass_on(wire, answer, lambda data: b"" if frames.is_done(data) else data)


@fault("right")
async def duplicate_chunk(wire: Wire, answer: Parts) -> None:
    """The chunk that opens a tool call and the one that finishes come twice."""
    await pass_on(wire, answer, lambda data: data * 2 if frames.opens_or_finishes(data) else data)


@fault("right")
async def empty_chunks(wire: Wire, answer: Parts) -> None:
    """Chunks without choices, and with empty deltas, come in between."""
    await pass_on(wire, answer, lambda data: frames.empty_like(data) + data)


@fault("right")
async def out_of_order_index(wire: Wire, answer: Parts) -> None:
    """Tool calls count down and leave numbers out."""
    await pass_on(wire, answer, frames.with_odd_indices)


@fault("right")
async def no_roles(wire: Wire, answer: Parts) -> None:
    """Deltas have no role, and nulls where nothing is."""
    await pass_on(wire, answer, frames.bare)


@fault("right")
async def json_for_stream(wire: Wire, answer: Parts) -> None:
    """A stream was asked for, and the answer comes in one JSON body."""
    body = await answer.all()
    if not answer.is_stream:
        await wire.answer(answer.status, body)
        return
    joined = frames.as_body(body)
    if joined is None:
        await wire.head(answer.status, answer.headers)
        await wire.exactly(body)
        await wire.end()
        return
    await wire.answer(200, joined)


@fault("error")
async def truncated_body(wire: Wire, answer: Parts) -> None:
    """The answer is shorter than its announced length."""
    body = await answer.all()
    await wire.head(answer.status, [*answer.without_length(), (b"content-length", str(len(body) + 100).encode())])
    await wire.exactly(body[: len(body) // 2])
    await wire.close()


@fault("error")
async def empty_body(wire: Wire, answer: Parts) -> None:  # noqa: ARG001
    """Status 200, and not a byte."""
    await wire.answer(200, b"")


@fault("error")
async def empty_reply(wire: Wire, answer: Parts) -> None:
    """A well-formed answer that says nothing: LM Studio where the prompt fills the context, or a template stops short."""
    await pass_on(wire, answer, bytes)
