"""Replay of a recording: over HTTP by a fake, or offline through the client's parser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._recordings.cassette import LEFT, WHOLE
from lmdeck._requests.other_endpoints import offered_tools
from lmdeck._responses.api_errors import api_error
from lmdeck._responses.json_bodies import decoded_or_text, is_error_body
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._streaming.native_chat import NativeTranslator
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck.errors import LMStudioError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from lmdeck._recordings.cassette import RecordedExchange
    from lmdeck._streaming.translator import Translator
    from lmdeck.messages import Reply

_LENGTH = ("content-length", "transfer-encoding", "connection", "keep-alive", "date", "server")


class ReplayApp:
    """An ASGI application that answers from a recording.

    Each exchange is used once, in order for its method and path.

    `speed` divides the recorded delays; 0 removes them.
    """

    def __init__(self, exchanges: Sequence[RecordedExchange], speed: float = 0.0) -> None:
        self._unused = list(exchanges)
        self._speed = speed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        while (await receive()).get("more_body", False):
            continue
        exchange = self._next(scope["method"], scope["path"])
        if exchange is None:
            body = f"The recording has no more answers for {scope['method']} {scope['path']}.".encode()
            await send({"type": "http.response.start", "status": 501, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": body})
            return
        headers = [(name.encode(), value.encode()) for name, value in exchange.headers.items() if name not in _LENGTH]
        await send({"type": "http.response.start", "status": exchange.status, "headers": headers})
        now = 0.0
        for piece in exchange.pieces:
            if self._speed:
                await asyncio.sleep(max(0.0, piece.at - now) / self._speed)
                now = piece.at
            await send({"type": "http.response.body", "body": piece.data, "more_body": True})
        if exchange.ended in {WHOLE, LEFT}:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _next(self, method: str, path: str) -> RecordedExchange | None:
        for at, exchange in enumerate(self._unused):
            if (exchange.method, exchange.path) == (method, path):
                if method == "GET" and all(
                    (later.method, later.path) != (method, path) for later in self._unused[at + 1 :]
                ):
                    return exchange  # the last listing may be requested again
                return self._unused.pop(at)
        return None


class ParsedExchange(Struct, frozen=True, kw_only=True):
    """How lmdeck reads a recorded response: as a reply, or as an error with the partial reply.

    Both are None for a response that is not an answer: a model list, embeddings, a load.
    """

    exchange: RecordedExchange
    reply: Reply | None = None
    error: LMStudioError | None = None


def parse_exchange(exchange: RecordedExchange) -> ParsedExchange:
    """Return how a client reads a recorded response."""
    if exchange.status >= 300 or not exchange.status:
        error = api_error(exchange.status, exchange.body, exchange.headers, path=exchange.path)
        return ParsedExchange(exchange=exchange, error=error)
    reader = _reader(exchange)
    if reader is None:
        refused = is_error_body(decoded_or_text(exchange.body))
        return ParsedExchange(
            exchange=exchange,
            error=api_error(exchange.status, exchange.body, exchange.headers, path=exchange.path) if refused else None,
        )
    try:
        for piece in exchange.pieces:
            reader.feed(piece.data)
        reader.finish()
        return ParsedExchange(exchange=exchange, reply=reader.reply())
    except LMStudioError as error:
        return ParsedExchange(exchange=exchange, error=error, reply=reader.partial())


def _reader(exchange: RecordedExchange) -> ChatReader | None:
    request: Mapping[str, Any] = exchange.request if isinstance(exchange.request, dict) else {}
    is_completion = exchange.path.endswith("/chat/completions")
    listed = request.get("tools")
    tools: list[Mapping[str, Any]] = (
        [tool for tool in listed if isinstance(tool, dict)] if isinstance(listed, list) else []
    )
    if not is_completion:
        tools = offered_tools({"tools": tools})
    offered = OfferedTools(() if request.get("tool_choice") == "none" else tools)
    assembler = ChatAssembler(text_parser=StreamParser(offered), tools=offered, model=str(request.get("model") or ""))
    if is_completion:
        return ChatReader(exchange.status, exchange.headers, assembler)
    translators: dict[str, Translator] = {
        "/api/v1/chat": NativeTranslator(request.get("max_output_tokens")),
        "/v1/responses": ResponsesTranslator(),
        "/v1/messages": AnthropicTranslator(),
    }
    translator = next((each for path, each in translators.items() if exchange.path.endswith(path)), None)
    return None if translator is None else TranslatingReader(exchange.status, exchange.headers, assembler, translator)
