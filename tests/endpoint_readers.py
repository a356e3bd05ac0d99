"""Answers of the endpoints that are translated, read from given bytes: a stream of events, or one body."""

from __future__ import annotations

import json
from typing import Any

from lmdeck import Chunk, Reply
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator

__all__ = ["event", "read", "read_body", "read_chunks", "reader"]


def reader(translator: Translator, **options: Any) -> TranslatingReader:
    """Return a reader of one answer; `options` are those of its assembler."""
    return TranslatingReader(200, {}, ChatAssembler(**options), translator)


def event(payload: dict[str, Any] | bytes) -> bytes:
    """Return an event under the name that its data has, if any."""
    if isinstance(payload, bytes):
        return b"data: %s\n\n" % payload
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload)}\n\n".encode()


def read_chunks(translator: Translator, *payloads: dict[str, Any] | bytes, **options: Any) -> tuple[Reply, list[Chunk]]:
    """Read the events of one answer; return the reply and its chunks."""
    target = reader(translator, **options)
    chunks = [chunk for payload in payloads for chunk in target.feed(event(payload))]
    chunks += target.finish()
    return target.reply(), chunks


def read(translator: Translator, *payloads: dict[str, Any] | bytes, **options: Any) -> Reply:
    """Read the events of one answer."""
    return read_chunks(translator, *payloads, **options)[0]


def read_body(translator: Translator, body: dict[str, Any] | bytes, **options: Any) -> Reply:
    """Read an answer in one body."""
    target = reader(translator, **options)
    target.feed(body if isinstance(body, bytes) else json.dumps(body).encode())
    target.finish()
    return target.reply()
