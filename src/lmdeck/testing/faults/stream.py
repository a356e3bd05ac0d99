"""Faults of the stream or the body, and unusual but correct variants of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lmdeck._encoders.event_stream import encode_comment, encode_event
from lmdeck.testing import chunk_frames
from lmdeck.testing.faults.declaration import fault, send_changed, send_first_chunks
from lmdeck.testing.scripted_answers import Answer

if TYPE_CHECKING:
    from lmdeck.testing.fake_connection import PlannedResponse, Wire

_LONG_LINE = 9 << 20


@fault("error")
async def stall(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The stream stalls after some chunks; the connection stays open."""
    await send_first_chunks(wire, response, after_chunks)
    await wire.wait_for_disconnect()


@fault("error")
async def reset(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The connection is reset after some chunks."""
    await send_first_chunks(wire, response, after_chunks)
    await asyncio.sleep(0.05)  # a reset discards data that was not read yet
    await wire.reset()


@fault("error")
async def cut(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The connection is closed after some chunks, as if the server was stopped."""
    await send_first_chunks(wire, response, after_chunks)
    await wire.close()


@fault("error")
async def early_end(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The stream ends properly after some chunks, without a finish reason, as a proxy ends it."""
    if not response.is_stream:
        body = await response.read()
        await wire.respond(response.status, body[: len(body) // 2])
        return
    await send_first_chunks(wire, response, after_chunks)
    await wire.end()


@fault("error")
async def half_chunk(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The stream ends in the middle of an event."""
    if not response.is_stream:
        await early_end(wire, response)
        return
    await send_first_chunks(wire, response, after_chunks)
    rest = await anext(aiter(response), b"data: {")
    await wire.send_unsplit(rest[: len(rest) // 2])
    await wire.end()


@fault("error")
async def garbage(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """Random bytes are sent after some chunks."""
    await send_first_chunks(wire, response, after_chunks)
    await wire.send_unsplit(b"data: " + bytes(wire.rng.choices(range(1, 256), k=64)) + b"\n\n")
    await (wire.end() if response.is_stream else wire.close())


@fault("error")
async def bad_json(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """An event contains invalid JSON."""
    if not response.is_stream:
        await wire.respond(200, b'{"id": "chatcmpl-1", "choices": [{"index": 0,}')
        return
    await send_first_chunks(wire, response, after_chunks)
    await wire.send_unsplit(encode_event(b'{"choices":[{"index":0,"delta":{"content":'))
    await wire.end()


@fault("error")
async def invalid_utf8(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """An event contains bytes that are not UTF-8."""
    if not response.is_stream:
        await wire.respond(200, b'{"id": "\xff\xfe", "choices": []}')
        return
    await send_first_chunks(wire, response, after_chunks)
    await wire.send_unsplit(b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xfa"}}]}\n\n')
    await wire.end()


@fault("error")
async def long_line(wire: Wire, response: PlannedResponse) -> None:
    """A single line has nine megabytes."""
    await wire.start(
        200, [(b"content-type", b"text/event-stream")] if response.is_stream else response.without_length()
    )
    for _ in range(_LONG_LINE >> 16):
        await wire.send_unsplit(b"x" * (1 << 16))
    await wire.end()


@fault("right")
async def trickle(wire: Wire, response: PlannedResponse) -> None:
    """Every byte is sent separately."""
    await wire.start(response.status, response.headers)
    async for data in response:
        for at in range(len(data)):
            await wire.send_unsplit(data[at : at + 1])
    await wire.end()


@fault("right")
async def one_piece(wire: Wire, response: PlannedResponse) -> None:
    """The whole stream arrives at once, as from a buffering proxy."""
    body = await response.read()
    await wire.start(response.status, response.headers)
    await wire.send_unsplit(body)
    await wire.end()


@fault("right")
async def keepalives(wire: Wire, response: PlannedResponse) -> None:
    """Comments are sent between the events."""
    if not response.is_stream:
        await send_changed(wire, response, bytes)
        return
    await send_changed(wire, response, lambda data: encode_comment("keep-alive") + data)


@fault("right")
async def crlf(wire: Wire, response: PlannedResponse) -> None:
    """Lines end with carriage return and line feed."""
    await send_changed(wire, response, lambda data: data.replace(b"\n", b"\r\n") if response.is_stream else data)


@fault("right")
async def byte_order_mark(wire: Wire, response: PlannedResponse) -> None:
    """The answer begins with a byte order mark."""
    await wire.start(response.status, response.without_length())
    await wire.send_unsplit(b"\xef\xbb\xbf")
    async for data in response:
        await wire.send(data)
    await wire.end()


@fault("right")
async def wrong_content_type(wire: Wire, response: PlannedResponse) -> None:
    """The content type is plain text."""
    await wire.start(response.status, [(b"content-type", b"text/plain")])
    async for data in response:
        await wire.send(data)
    await wire.end()


@fault("right")
async def no_done(wire: Wire, response: PlannedResponse) -> None:
    """The stream ends after its finish reason, without the end marker."""
    await send_changed(wire, response, lambda data: b"" if chunk_frames.is_done(data) else data)


@fault("right")
async def duplicate_chunk(wire: Wire, response: PlannedResponse) -> None:
    """The chunk that starts a tool call and the last chunk are sent twice."""
    await send_changed(wire, response, lambda data: data * 2 if chunk_frames.opens_or_finishes(data) else data)


@fault("right")
async def empty_chunks(wire: Wire, response: PlannedResponse) -> None:
    """Chunks without choices and chunks with empty deltas are sent between the others."""
    await send_changed(wire, response, lambda data: chunk_frames.empty_like(data) + data)


@fault("right")
async def out_of_order_index(wire: Wire, response: PlannedResponse) -> None:
    """The indices of tool calls descend and have gaps."""
    await send_changed(wire, response, chunk_frames.with_odd_indices)


@fault("right")
async def no_roles(wire: Wire, response: PlannedResponse) -> None:
    """Deltas have no role, and null for missing fields."""
    await send_changed(wire, response, chunk_frames.without_role)


@fault("right")
async def json_for_stream(wire: Wire, response: PlannedResponse) -> None:
    """A requested stream is answered with a single JSON body."""
    body = await response.read()
    if not response.is_stream:
        await wire.respond(response.status, body)
        return
    joined = chunk_frames.as_body(body)
    if joined is None:
        await wire.start(response.status, response.headers)
        await wire.send_unsplit(body)
        await wire.end()
        return
    await wire.respond(200, joined)


@fault("error")
async def truncated_body(wire: Wire, response: PlannedResponse) -> None:
    """The body is shorter than its `Content-Length`."""
    body = await response.read()
    await wire.start(response.status, [*response.without_length(), (b"content-length", str(len(body) + 100).encode())])
    await wire.send_unsplit(body[: len(body) // 2])
    await wire.close()


@fault("error")
async def empty_body(wire: Wire, _: PlannedResponse) -> None:
    """Status 200 with an empty body."""
    await wire.respond(200, b"")


@fault("error", change_answer=lambda answer: Answer(fault=answer.fault, completion_tokens=0))
async def empty_reply(wire: Wire, response: PlannedResponse) -> None:
    """A well-formed but empty answer, as from LM Studio if the prompt fills the context."""
    await send_changed(wire, response, bytes)
