"""A request of another client: its body for LM Studio, and the reader of its answer."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._limits import Limits
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._requests.chat import expects_one_call
from lmdeck._requests.other_endpoints import offered_tools
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader, Observer
from lmdeck._streaming.openai_completions import CompletionTranslator
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator
from lmdeck._streaming.wire_chunks import without_lone_surrogates
from lmdeck.errors import InvalidRequestError, LMStudioError
from lmdeck.messages import Problem
from lmdeck.relay.chat_requests import chat_body, completion_body, embedding_body
from lmdeck.relay.chat_writer import ChatWriter, CompletionWriter
from lmdeck.relay.endpoint_urls import Kind
from lmdeck.relay.errors import anthropic_error, openai_error
from lmdeck.relay.messages_requests import message_body
from lmdeck.relay.messages_writer import MessagesWriter
from lmdeck.relay.repaired_answers import ChatRelay, EmbeddingRelay, RelayReader
from lmdeck.relay.requested_json import RequestedJson
from lmdeck.relay.responses_requests import response_body
from lmdeck.relay.responses_writer import ResponsesWriter

__all__ = ["RelayRequest", "error_body"]

_LIMITS: dict[str, tuple[str, ...]] = {
    "chat": ("max_tokens", "max_completion_tokens"),
    "completions": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
WITHOUT_RAW = Limits(raw_bytes=0)  # a relay writes what it reads, so it is never read again
LOGPROBS = "message.output_text.logprobs"


def error_body(kind: Kind, error: LMStudioError) -> dict[str, Any]:
    """Return an error in the wire format of an endpoint."""
    return anthropic_error(error) if kind == "messages" else openai_error(error)


class RelayRequest:
    """One request to be relayed.

    `body` is sent to LM Studio, and `problems` are the changes made. `reader` returns a reader that writes the repaired answer,
    one for each attempt.
    """

    def __init__(
        self, kind: Kind, data: bytes, *, model: str | None = None, without_rules: Collection[str] = ()
    ) -> None:
        """Convert a request's body; `model` is the default model.

        Raises:
            LMStudioError: The body cannot be converted.
        """
        self.kind = kind
        self.fixes = CompatibilityFixes(without_rules)
        sent = _decoded(data)
        if model and not sent.get("model"):
            sent["model"] = model
        self.sent: Mapping[str, Any] = sent
        self.custom: set[str] = set()
        self.body: Mapping[str, Any] = self._adjusted(sent)
        self.streams = kind != "embeddings" and sent.get("stream") is True
        self.model = str(sent.get("model") or "")

    def use_model(self, model: str) -> None:
        """Send the request to another model than the one it names."""
        self.model = model
        self.body = {**self.body, "model": model}

    @property
    def problems(self) -> list[Problem]:
        """The changes made to the request."""
        return self.fixes.problems

    def reader(self, status: int, headers: Mapping[str, str], *, architecture: str = "") -> RelayReader:
        """Return a reader of one answer; `architecture` is the model's, if known."""
        if self.kind == "embeddings":
            texts = self.body.get("input")
            count = len(texts) if isinstance(texts, list) else 1
            packs = self.sent.get("encoding_format") == "base64"
            dimensions = self.body.get("dimensions")
            return EmbeddingRelay(status, headers, count, dimensions=dimensions, packs=packs, adjusted=self.problems)
        return ChatRelay(
            lambda observe: self._chat_reader(status, headers, architecture, observe),
            self._writer(),
            streams=self.streams,
            adjusted=self.problems,
            requested_json=self._requested_json(),
            write_error=lambda error: error_body(self.kind, error),
        )

    def _adjusted(self, sent: dict[str, Any]) -> dict[str, Any]:
        match self.kind:
            case "chat":
                body, self.custom = chat_body(sent, self.fixes)
            case "responses":
                body, self.custom = response_body(sent, self.fixes)
            case "messages":
                body = message_body(sent, self.fixes)
            case "completions":
                body = completion_body(sent, self.fixes)
            case "embeddings":
                body = embedding_body(sent, self.fixes)
            case _:
                body = sent
        return body

    def _chat_reader(self, status: int, headers: Mapping[str, str], architecture: str, observe: Observer) -> ChatReader:
        offered = OfferedTools(self._offered())
        reads_markup = self.kind != "completions"
        assembler = ChatAssembler(
            expects_tokens=all(self.body.get(name) != 0 for name in _LIMITS[self.kind]),
            expects_logprobs=bool(self.body.get("logprobs")) or LOGPROBS in (self.body.get("include") or ()),
            expects_one_call=expects_one_call(self.body),
            text_parser=StreamParser(offered, architecture=architecture) if reads_markup else None,
            tools=offered,
            problems=self.problems,
            model=self.model,
        )
        if self.kind == "chat":
            return ChatReader(status, headers, assembler, WITHOUT_RAW, observe)
        translator = _TRANSLATORS[self.kind]()
        return TranslatingReader(status, headers, assembler, translator, WITHOUT_RAW, observe)

    def _offered(self) -> list[Any]:
        if self.kind == "chat":
            return [] if self.body.get("tool_choice") == "none" else list(self.body.get("tools") or ())
        return offered_tools(self.body)

    def _writer(self) -> ChatWriter | MessagesWriter | ResponsesWriter:
        if self.kind == "messages":
            return MessagesWriter(streams=self.streams, model=self.model)
        if self.kind == "responses":
            return ResponsesWriter(streams=self.streams, custom=self.custom, model=self.model)
        options = self.sent.get("stream_options")
        return (ChatWriter if self.kind == "chat" else CompletionWriter)(
            streams=self.streams,
            includes_usage=isinstance(options, Mapping) and options.get("include_usage") is True,
            custom=self.custom,
            model=self.model,
        )

    def _requested_json(self) -> RequestedJson | None:
        """Return the extraction of requested JSON; None if no JSON was requested."""
        text = self.body.get("text")
        form = self.body.get("response_format") if self.kind == "chat" else None
        if self.kind == "responses" and isinstance(text, Mapping):
            form = text.get("format")
        if not isinstance(form, Mapping) or form.get("type") not in {"json_schema", "json_object"}:
            return None
        named = form.get("json_schema", form)
        schema = named.get("schema") if isinstance(named, Mapping) else None
        return RequestedJson(schema if isinstance(schema, Mapping) else {})


_TRANSLATORS: dict[str, Callable[[], Translator]] = {
    "responses": ResponsesTranslator,
    "messages": AnthropicTranslator,
    "completions": CompletionTranslator,
}


def _decoded(data: bytes) -> dict[str, Any]:
    """Decode a request's body.

    It may begin with a byte order mark, or contain lone surrogates (JavaScript can cut an emoji in two).
    """
    data = data.removeprefix(BOM_UTF8)
    try:
        try:
            decoded = msgspec.json.decode(data)
        except msgspec.DecodeError:
            decoded = msgspec.json.decode(without_lone_surrogates(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"The request's body is not JSON: {error}.", status=400) from error
    if not isinstance(decoded, dict):
        raise InvalidRequestError("The request's body is not a JSON object.", status=400)
    return decoded
