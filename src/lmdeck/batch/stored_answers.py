"""Stored answers → replies: the body of an answer in its wire format, read by the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from lmdeck._responses.embeddings import read_completion, read_usage, read_vectors
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator
from lmdeck.batch.input_requests import endpoint_of
from lmdeck.messages import Reply
from lmdeck.outputs import Completion, Embeddings

BatchReply: TypeAlias = Reply | Completion | Embeddings
_TRANSLATORS: dict[str, Callable[[], Translator]] = {"responses": ResponsesTranslator, "messages": AnthropicTranslator}


def read_reply(endpoint: str, body: bytes) -> BatchReply:
    """Return an answer as the client's value: `Reply`, `Completion` or `Embeddings`."""
    kind = endpoint_of(endpoint)[1]
    if kind == "embeddings":
        return _embeddings(body)
    if kind == "completions":
        return read_completion(msgspec.json.decode(body), "", expects_tokens=False, expects_logprobs=False)
    assembler = ChatAssembler(expects_tokens=False)  # an empty answer was refused before it was stored
    translator = _TRANSLATORS.get(kind)
    reader = (
        ChatReader(200, {}, assembler) if translator is None else TranslatingReader(200, {}, assembler, translator())
    )
    reader.feed(body)
    reader.finish()
    return reader.reply()


def text_of(endpoint: str, body: bytes) -> str:
    """Return the text of an answer; `""` for vectors."""
    reply = read_reply(endpoint, body)
    if isinstance(reply, Embeddings):
        return ""
    return reply.text if isinstance(reply, Completion) else reply.content


def _embeddings(body: bytes) -> Embeddings:
    answer = msgspec.json.decode(body)
    return Embeddings(
        vectors=read_vectors(answer, len(answer.get("data") or ())),
        model=str(answer.get("model") or ""),
        usage=read_usage(answer),
    )
