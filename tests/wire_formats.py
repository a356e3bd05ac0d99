"""The endpoints as one: how each is asked, and how each one's stream says a word and then that it failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from asking import alm, lm
from lmdeck import Chunk, LMStudioError
from loopback import head

__all__ = ["FORMATS", "STREAMED", "Format", "Outcome", "run", "stream_of"]


@dataclass(frozen=True)
class Format:
    """One endpoint: its path, what asks it (the whole answer, and a stream where there is one), and its events."""

    path: str
    ask: Callable[[Any], Any]
    stream: Callable[[Any], Any] | None = None
    words: Callable[[str], list[dict[str, Any]]] | None = None
    failure: Callable[[str], dict[str, Any]] | None = None


@dataclass
class Outcome:
    """What came of asking: the value or the error, and the chunks before it."""

    value: Any = None
    error: LMStudioError | None = None
    chunks: list[Chunk] = field(default_factory=list)


def run(url: str, form: Format, *, is_async: bool, stream: bool, **settings: Any) -> Outcome:
    """Ask with a new client."""
    outcome = Outcome()

    async def ask_async() -> None:
        async with alm(url, **settings) as client:
            if not stream or form.stream is None:
                outcome.value = await form.ask(client)
                return
            async with form.stream(client) as opened:
                async for chunk in opened:
                    outcome.chunks.append(chunk)
                outcome.value = opened.reply

    def ask() -> None:
        with lm(url, **settings) as client:
            if not stream or form.stream is None:
                outcome.value = form.ask(client)
                return
            with form.stream(client) as opened:
                for chunk in opened:
                    outcome.chunks.append(chunk)
                outcome.value = opened.reply

    try:
        asyncio.run(ask_async()) if is_async else ask()
    except LMStudioError as error:
        outcome.error = error
    return outcome


FORMATS: dict[str, Format] = {
    "chat": Format(
        "/v1/chat/completions",
        lambda client: client.chat("m").user("Hi").send(),
        lambda client: client.chat("m").user("Hi").stream(),
        lambda text: [
            {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
        ],
        lambda words: {"error": {"message": words}, "message": words},
    ),
    "responses": Format(
        "/v1/responses",
        lambda client: client.responses.create(model="m", input="Hi"),
        lambda client: client.responses.stream(model="m", input="Hi"),
        lambda text: [{"type": "response.output_text.delta", "output_index": 0, "delta": text}],
        lambda words: {"type": "error", "message": words, "code": None, "param": None},
    ),
    "responses, failed": Format(
        "/v1/responses",
        lambda client: client.responses.create(model="m", input="Hi"),
        lambda client: client.responses.stream(model="m", input="Hi"),
        lambda text: [{"type": "response.output_text.delta", "item_id": "msg_1", "delta": text}],
        lambda words: {"type": "response.failed", "response": {"error": {"code": None, "message": words}}},
    ),
    "messages": Format(
        "/v1/messages",
        lambda client: client.messages.create(model="m", messages=[{"role": "user", "content": "Hi"}]),
        lambda client: client.messages.stream(model="m", messages=[{"role": "user", "content": "Hi"}]),
        lambda text: [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}],
        lambda words: {"type": "error", "error": {"message": words}},
    ),
    "conversation": Format(
        "/api/v1/chat",
        lambda client: client.conversation("m").send("Hi"),
        lambda client: client.conversation("m").stream("Hi"),
        lambda text: [{"type": "message.delta", "content": text}],
        lambda words: {"type": "error", "error": {"message": words}},
    ),
    "completions": Format("/v1/completions", lambda client: client.complete("Hi", model="m")),
    "embeddings": Format("/v1/embeddings", lambda client: client.embed("Hi", model="m")),
    "models": Format("/api/v1/models", lambda client: client.models.list()),
    "load": Format("/api/v1/models/load", lambda client: client.models.load("m", force=True)),
}
STREAMED = [name for name, form in FORMATS.items() if form.stream is not None]


def stream_of(*events: dict[str, Any]) -> bytes:
    """Return a stream's head and events, each under its own name; the connection ends it."""
    frames = [f"event: {event.get('type', 'message')}\ndata: {json.dumps(event)}\n\n" for event in events]
    return head(content_type="text/event-stream", connection="close") + "".join(frames).encode()
