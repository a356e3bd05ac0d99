"""The answers of the endpoints that are translated: what is no answer, and which bytes are read leniently, is alike in all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from endpoint_readers import event, read, read_body, read_chunks, reader
from lmdeck import APIError, IncompleteStreamError, LMStudioError, MalformedStreamError, ModelLoadError
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.native_chat import NativeTranslator
from lmdeck._streaming.openai_completions import CompletionTranslator
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator
from lmdeck.native_events import ServerEvent


@dataclass(frozen=True)
class Endpoint:
    """An endpoint's translator, an event that brings a text, the events that end the answer, and a body with a text."""

    translator: Callable[[], Translator]
    says: dict[str, Any]
    ends: list[dict[str, Any]]
    body: dict[str, Any]


ENDPOINTS = {
    "messages": Endpoint(
        AnthropicTranslator,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "?"}},
        [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}],
        {"content": "?"},
    ),
    "native": Endpoint(
        NativeTranslator,
        {"type": "message.delta", "content": "?"},
        [{"type": "chat.end", "result": {}}],
        {"output": [{"type": "message", "content": "?"}]},
    ),
    "responses": Endpoint(
        ResponsesTranslator,
        {"type": "response.output_text.delta", "output_index": 0, "delta": "?"},
        [{"type": "response.completed", "response": {"status": "completed"}}],
        {"output": [{"type": "message", "content": "?"}]},
    ),
    "completions": Endpoint(
        CompletionTranslator,
        {"choices": [{"text": "?"}]},
        [{"choices": [{"text": "", "finish_reason": "stop"}]}],
        {"choices": [{"text": "?", "finish_reason": "stop"}]},
    ),
}
endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS.keys())


def saying(payload: dict[str, Any], text: str) -> bytes:
    """Return the JSON of an event or body, with a text as it is written in JSON."""
    return json.dumps(payload).replace('"?"', f'"{text}"').encode()


@endpoints
@pytest.mark.parametrize(
    ("written", "text"), [("It rains.", "It rains."), (r"\ud83d\ude00", "😀"), (r"a\ud83d", "a\ufffd")]
)
def test_a_text_is_read_in_a_stream_and_in_a_body(endpoint: Endpoint, written: str, text: str) -> None:
    """Half a surrogate pair, as servers send it that cut UTF-16, loses no answer."""
    assert read(endpoint.translator(), saying(endpoint.says, written), *endpoint.ends).content == text
    assert read_body(endpoint.translator(), saying(endpoint.body, written)).content == text


@endpoints
def test_blank_events_and_end_marks_mean_nothing(endpoint: Endpoint) -> None:
    """`raw` has the others, as they came."""
    said = saying(endpoint.says, "Hi")
    reply, chunks = read_chunks(endpoint.translator(), b"", said, b" ", *endpoint.ends, b"[DONE]")
    assert reply.content == "".join(chunk.content for chunk in chunks) == "Hi"
    assert reply.raw == [said, *(json.dumps(end).encode() for end in endpoint.ends)]


@pytest.mark.parametrize("name", ["messages", "native", "responses"])
def test_the_last_event_ends_the_answer(name: str) -> None:
    """Whether the connection ends after it or not."""
    endpoint = ENDPOINTS[name]
    target = reader(endpoint.translator())
    for payload, is_done in [(endpoint.says, False), *((end, end is endpoint.ends[-1]) for end in endpoint.ends)]:
        target.feed(event(payload))
        assert target.is_done is is_done


AFTER_THE_END = {
    "text": b'data: {"type": "message.delta", "content": "more"}\n\n',
    "an error": b'event: error\ndata: {"error": {"message": "It broke"}}\n\n',
    "no JSON": b"data: {nonsense\n\n",
    "half an event": b'data: {"type',
}


@endpoints
@pytest.mark.parametrize("after", AFTER_THE_END.values(), ids=AFTER_THE_END)
@pytest.mark.parametrize("has_ends", [True, False], ids=["after the last event", "alone"])
def test_the_end_mark_ends_the_answer_whatever_follows(endpoint: Endpoint, after: bytes, has_ends: bool) -> None:
    """A server need not close its connection, and what follows in the same read is read as little as what comes later."""
    seen: list[bytes] = []
    for observe in (None, lambda data, _: seen.append(data)):
        target = TranslatingReader(200, {}, ChatAssembler(), endpoint.translator(), observe=observe)
        for payload in [endpoint.says, *(endpoint.ends if has_ends else ())]:
            target.feed(event(payload))
        target.feed(event(b"[DONE]") + after)
        assert target.is_done
        target.finish()
        reply = target.reply()
        assert (reply.content, reply.finish_reason) == ("?", "stop")
    assert seen[-2:] == [b"[DONE]", b""]


@endpoints
def test_a_heartbeat_of_a_proxy_is_no_event(endpoint: Endpoint) -> None:
    """Its data does not matter; one with an object is handed on as an event of the server."""
    target = reader(endpoint.translator())
    assert target.feed(b"event: ping\n" + event(b"2026-11-26 17:00:00")) == []
    [chunk] = target.feed(b"event: ping\n" + event(b"{}"))
    assert chunk.event == ServerEvent("ping", {"type": "ping"})


@endpoints
def test_an_event_may_have_its_name_beside_its_data(endpoint: Endpoint) -> None:
    target = reader(endpoint.translator())
    for payload in [endpoint.says, *endpoint.ends]:
        name = f"event: {payload.pop('type')}\n" if "type" in (payload := dict(payload)) else ""
        target.feed(name.encode() + event(payload))
    target.finish()
    assert (target.reply().content, target.reply().finish_reason) == ("?", "stop")


@endpoints
@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        (b'{"type": "engine.failed", "error": {"message": "Out of memory"}}', ModelLoadError, "Out of memory"),
        (b'{"type": "error", "error": {"message": "It broke"}}', APIError, "It broke"),
        (b'{"type": ', MalformedStreamError, "Event 2 of the stream is not an event of this endpoint"),
        (b"[1, 2]", MalformedStreamError, "Event 2 of the stream"),
        (b'"text"', MalformedStreamError, "Event 2 of the stream"),
        (b'{"type": "\xff"}', MalformedStreamError, "Event 2 of the stream"),
        (b'{"type": ' + b"[" * 5000, MalformedStreamError, "Event 2 of the stream"),
    ],
)
def test_an_event_that_is_none_is_a_typed_error_with_the_text_so_far(
    endpoint: Endpoint,
    payload: bytes,
    kind: type[LMStudioError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message) as caught:
        read(endpoint.translator(), saying(endpoint.says, "Hi"), payload, *endpoint.ends)
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hi"


@endpoints
def test_an_event_under_the_name_of_an_error_is_one_whatever_it_holds(endpoint: Endpoint) -> None:
    for data, message in [(b'{"message": "It broke"}', "It broke"), (b"It broke", "It broke")]:
        with pytest.raises(APIError, match=message):
            reader(endpoint.translator()).feed(b"event: error\n" + event(data))


@endpoints
@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b'{"error": {"message": "It broke"}}', APIError, "It broke"),
        (b'{"error": "It broke"', IncompleteStreamError, "cut off in the middle of its JSON"),
        (b'{"hello": "world"}', MalformedStreamError, 'not an answer of this endpoint: {"hello": "world"}'),
        (b"{hello}", MalformedStreamError, "not JSON of this API"),
        (b"[1, 2]", MalformedStreamError, "not JSON of this API"),
        (b'{"output": "\xff"}', MalformedStreamError, "not JSON of this API"),
        (b'{"output": ' + b"[" * 5000, LMStudioError, ""),
        (b"", IncompleteStreamError, "no body"),
    ],
)
def test_a_body_that_is_none_is_a_typed_error(
    endpoint: Endpoint,
    data: bytes,
    kind: type[LMStudioError],
    message: str,
) -> None:
    with pytest.raises(kind) as caught:
        read_body(endpoint.translator(), data)
    assert message in caught.value.message


@endpoints
def test_a_stream_that_ends_early_was_cut_off(endpoint: Endpoint) -> None:
    with pytest.raises(IncompleteStreamError, match="without a finish reason") as caught:
        read(endpoint.translator(), saying(endpoint.says, "Hi"))
    assert caught.value.partial is not None
    assert caught.value.partial.content == "Hi"
