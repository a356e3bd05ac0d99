"""From bytes to replies: what LM Studio sends, however it is cut, and everything that is no answer."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._limits import Limits
from lmdeck._parsing.parser import StreamParser
from lmdeck._responses.json_reader import JSONReader
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.errors import (
    APIError,
    ConnectionLostError,
    ContextLengthError,
    EmptyReplyError,
    EndpointNotFoundError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    ModelCrashedError,
    ServerError,
)
from lmdeck.events import Chunk
from lmdeck.messages import Reply
from lmdeck.stats import Stats, Usage

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json; charset=utf-8"}
BOM = b"\xef\xbb\xbf"


def reader(
    headers: dict[str, str] | None = None, status: int = 200, limits: Limits | None = None, **options: Any
) -> ChatReader:
    """Make a reader of one answer."""
    numbers = itertools.count(1)
    assembler = ChatAssembler(new_id=lambda: f"new{next(numbers)}", **options)
    return ChatReader(status, headers or {}, assembler, limits or Limits())


def read(*pieces: bytes, headers: dict[str, str] | None = None, **options: Any) -> tuple[Reply, list[Chunk]]:
    """Read pieces and the end."""
    target = reader(headers, **options)
    chunks = [chunk for piece in pieces for chunk in target.feed(piece)]
    chunks += target.finish()
    return target.reply(), chunks


def event(payload: object, name: str | None = None) -> bytes:
    """Write an event as LM Studio does."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    return (b"" if name is None else f"event: {name}\n".encode()) + b"data: " + data + b"\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Write a chunk of LM Studio's."""
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1742151695,
            "model": "qwen2.5-7b-instruct",
            "system_fingerprint": "qwen2.5-7b-instruct",
            "choices": [{"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}],
            **more,
        }
    )


def tool(id: str | None = None, name: str = "", arguments: str = "") -> dict[str, Any]:
    """Write a tool-call delta of LM Studio's: an id on the first, an empty name on all others."""
    given_id = {} if id is None else {"id": id}
    call = {"index": 0, **given_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "tool_calls": [call]}


DONE = b"data: [DONE]\n\n"
TEXT = b"".join(
    [
        chunk({"role": "assistant", "content": "In "}),
        chunk({"content": "Zürich 😀\u2028"}),
        chunk({"content": "."}),
        chunk({}, "stop"),
        DONE,
    ]
)
TOOL = b"".join(
    [
        chunk(tool("633167655", "get_weather")),
        chunk(tool(arguments='{"')),
        chunk(tool(arguments='city":"Paris"}')),
        chunk({}, "stop"),
        DONE,
    ]
)
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "qwen2.5-7b-instruct",
        "choices": [{"index": 0, "logprobs": None, "finish_reason": "stop", "message": {"content": "Paris 😀"}}],
        "usage": {"prompt_tokens": 36, "completion_tokens": 7, "total_tokens": 43},
        "stats": {"tokens_per_second": 37.5, "time_to_first_token": 0.354, "generation_time": 0.214, "stop_reason": "stop"},
        "model_info": {"arch": "qwen2", "quant": "Q8_0", "format": "gguf", "context_length": 4096},
        "runtime": {"name": "llama.cpp-mac-arm64-apple-metal-advsimd", "version": "1.21.0", "supported_formats": ["gguf"]},
    },
    indent=2,
).encode()  # fmt: skip


def segmentations(wire: bytes) -> list[list[bytes]]:
    """Cut whole, byte by byte, in tens, and at random places."""
    rng = random.Random(0)
    cuts = [sorted(rng.choices(range(len(wire) + 1), k=min(20, len(wire)))) for _ in range(3)]
    return [
        [wire],
        [bytes([byte]) for byte in wire],
        [wire[start : start + 10] for start in range(0, len(wire), 10)],
        [line + b"\n\n" for line in wire.split(b"\n\n") if line] if wire.endswith(b"\n\n") else [wire],
        *([wire[start:end] for start, end in zip([0, *cut], [*cut, len(wire)], strict=True)] for cut in cuts),
    ]


# --- whole answers ----------------------------------------------------------------------------------------------------


def test_a_stream_as_lm_studio_sends_it() -> None:
    """The reply has the text, and the events themselves in `raw`."""
    reply, chunks = read(TEXT, headers=SSE)
    assert (reply.content, reply.finish_reason, reply.model, reply.id) == (
        "In Zürich 😀\u2028.", "stop", "qwen2.5-7b-instruct", "chatcmpl-1",
    )  # fmt: skip
    assert [each.content for each in chunks] == ["In ", "Zürich 😀\u2028", ".", ""]
    assert isinstance(reply.raw, list)
    assert b"".join(b"data: %s\n\n" % each for each in reply.raw) + DONE == TEXT


def test_a_call_as_lm_studio_streams_it() -> None:
    """An empty name on every continuation, and `stop` as finish reason."""
    reply, _ = read(TOOL, headers=SSE)
    call = reply.tool_calls[0]
    assert (call.id, call.name, call.arguments, reply.finish_reason) == (
        "633167655",
        "get_weather",
        {"city": "Paris"},
        "tool_calls",
    )


def test_a_body_as_lm_studio_sends_it() -> None:
    """The reply has text and figures, and the body itself in `raw`."""
    reply, chunks = read(WHOLE, headers=JSON)
    assert (reply.content, reply.raw) == ("Paris 😀", WHOLE)
    assert reply.usage == Usage(prompt_tokens=36, completion_tokens=7, total_tokens=43)
    assert reply.stats == Stats(
        tokens_per_second=37.5, time_to_first_token=0.354, generation_time=0.214, stop_reason="stop"
    )
    assert (reply.model_info and reply.model_info.arch, reply.runtime and reply.runtime.version) == ("qwen2", "1.21.0")
    assert [each.content for each in chunks] == ["Paris 😀", ""]


VARIANTS = {
    "as sent": lambda wire: wire,
    "CRLF": lambda wire: wire.replace(b"\n", b"\r\n"),
    "CR": lambda wire: wire.replace(b"\n", b"\r"),
    "BOM": lambda wire: BOM + wire,
    "no space after the colon": lambda wire: wire.replace(b"data: ", b"data:"),
    "heartbeats": lambda wire: b": ping\n\n" + wire.replace(b"\n\n", b"\n\n: ping\n\n"),
    "blank lines first": lambda wire: b"\n \r\n\t\n" + wire,
    "blanks first": lambda wire: b"   " + wire,
    "ids and retries": lambda wire: b"retry: 5\n\n" + wire.replace(b"data: ", b"id: 7\ndata: "),
    "heartbeats with names": lambda wire: (
        b"event: ping\ndata: {}\n\n" + wire.replace(b"\n\n", b'\n\nevent: keep-alive\ndata: {"type": "ping"}\n\n')
    ),
    "named events": lambda wire: wire.replace(b"data: {", b"event: message\ndata: {"),
    "no last blank line": lambda wire: wire.rstrip(b"\n"),
    "no end mark": lambda wire: wire.removesuffix(DONE),
    "more after the end mark": lambda wire: wire + b": bye\n\n",
    "twice the end mark": lambda wire: wire + DONE,
    "blank data": lambda wire: b"data:\n\n" + wire,
}


@pytest.mark.parametrize("headers", [SSE, JSON, {}], ids=["as events", "as JSON", "as nothing"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("wire", [TEXT, TOOL], ids=["text", "call"])
def test_an_answer_does_not_depend_on_how_it_was_written_or_cut(
    wire: bytes, variant: Any, headers: dict[str, str]
) -> None:
    """Line ends, heartbeats, content types and reads may fall as they like."""
    expected = read(wire)[0]
    for pieces in segmentations(variant(wire)):
        reply = read(*pieces, headers=headers)[0]
        assert msgspec.structs.replace(reply, raw=b"") == msgspec.structs.replace(expected, raw=b"")


@pytest.mark.parametrize("before", [b"", b"\n\n", b"  \r\n\t", BOM])
@pytest.mark.parametrize("headers", [SSE, JSON, {}], ids=["as events", "as JSON", "as nothing"])
def test_a_body_does_not_depend_on_how_it_was_cut(before: bytes, headers: dict[str, str]) -> None:
    """A stream request may be answered by a body, whatever its content type says."""
    for pieces in segmentations(before + WHOLE + b"\n"):
        assert read(*pieces, headers=headers)[0].content == "Paris 😀"


@given(st.lists(st.integers(0, len(TEXT + TOOL)), max_size=30), st.booleans())
def test_any_cuts_of_a_stream(cuts: list[int], is_call: bool) -> None:
    """Every piece may be empty."""
    wire = TOOL if is_call else TEXT
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    assert read(*(wire[start:end] for start, end in itertools.pairwise(places)))[0] == read(wire)[0]


def test_chunks_come_with_the_read_that_completes_them() -> None:
    """No chunk waits for a later read."""
    target = reader(SSE)
    assert target.feed(b"data: {") == []
    assert target.feed(chunk({"content": "Hi"})[7:]) == [Chunk("Hi")]
    assert target.is_streamed
    assert not target.is_done
    target.feed(chunk({}, "stop") + DONE)
    assert target.is_done


@pytest.mark.parametrize("seed", range(20))
def test_raw_has_every_event_as_it_came(seed: int) -> None:
    """What events share is kept once, however they change: equal ones, others, a time that ticks, one inside another."""
    choose = random.Random(seed)
    events = [b'{"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}']
    for _ in range(choose.randrange(40)):
        delta = {choose.choice(["content", "reasoning_content"]): choose.choice(["", "a", "aa", " b", '"}', "x" * 300])}
        event = json.dumps({"id": "1", "created": choose.randrange(3), "choices": [{"index": 0, "delta": delta}]})
        events.append(choose.choice([events[-1], event.encode(), b'{"choices":[],"usage":{"total_tokens":3}}']))
    wire = b"".join(b"data: %s\n\n" % event for event in events)
    assert read(wire + DONE, headers=SSE)[0].raw == events


def test_raw_is_cut_at_its_limit_and_says_so() -> None:
    """Memory does not grow with the answer; nothing is said where nothing was dropped."""
    wire = b"".join([chunk({"content": "x"})] * 10) + chunk({}, "stop") + DONE
    size = len(chunk({"content": "x"})) - len(b"data: \n\n")
    reply = read(wire, limits=Limits(raw_bytes=3 * size))[0]
    assert (len(reply.raw), [problem.code for problem in reply.problems]) == (3, ["raw_shortened"])
    assert reply.content == "x" * 10
    whole = read(wire, limits=Limits(raw_bytes=len(wire)))[0]
    assert (len(whole.raw), whole.problems) == (11, [])


def test_half_a_surrogate_pair_loses_no_answer() -> None:
    """JavaScript cuts text between UTF-16 units; pairs that are whole, and text about them, stay as they are."""
    parts = [rb"a\ud83d", rb"\ude00b", rb"\ud83d\ude00", rb"\\ud83d", rb"\uD83D\n"]
    wire = b"".join(event(b'{"id":"x","choices":[{"delta":{"content":"%s"}}]}' % part) for part in parts) + chunk(
        {}, "stop"
    )
    reply = read(wire)[0]
    assert reply.content == "a\ufffd\ufffdb😀\\ud83d\ufffd"
    assert {problem.code for problem in reply.problems} == {"text_mended"}
    body = b'{"choices":[{"message":{"content":"a\\ud83d"},"finish_reason":"stop"}]}'
    assert read(body)[0].content == "a\ufffd"


# --- LM Studio's own answers --------------------------------------------------------------------------------------------


def captures(*patterns: str) -> list[Any]:
    """Find captured answers; where there are none, one test says so."""
    found = sorted(path for pattern in patterns for path in CAPTURES.glob(pattern))
    if not found:
        return [
            pytest.param(
                None, marks=pytest.mark.skip(reason=f"NO CAPTURES of LM Studio in {CAPTURES.name}/: not checked")
            )
        ]
    return [pytest.param(path, id=path.name) for path in found]


@pytest.mark.no_cover  # the same lines in thousands of segmentations
@pytest.mark.parametrize("path", captures("*streaming__*.txt"))
def test_a_captured_stream(path: Path) -> None:
    """What LM Studio sent, read in every segmentation, is what its deltas add up to."""
    wire = path.read_bytes().rstrip() + b"\n\n"
    events = [json.loads(line[6:]) for line in wire.splitlines() if line.startswith(b"data: {")]
    deltas = [each["choices"][0]["delta"] for each in events]
    content = "".join(delta.get("content") or "" for delta in deltas).strip()
    pieces = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = "".join(piece.get("arguments") or "" for piece in pieces)
    names = [piece["name"] for piece in pieces if piece.get("name")]
    variants = VARIANTS if len(wire) < 20_000 else {"as sent": VARIANTS["as sent"], "CRLF": VARIANTS["CRLF"]}
    for variant in variants.values():
        for cut in segmentations(variant(wire)):
            reply = read(*cut, headers=SSE)[0]
            assert reply.content == content
            assert [call.name for call in reply.tool_calls] == names
            assert [call.arguments for call in reply.tool_calls] == ([json.loads(arguments)] if names else [])
            assert reply.finish_reason == ("tool_calls" if names else "stop")
            assert (reply.id, reply.model) == (events[0]["id"], events[0]["model"])
            assert reply.problems == []


@pytest.mark.parametrize("path", captures("*chat__*-chunks@*.json"))
def test_captured_chunks(path: Path) -> None:
    """The chunk lists of that suite are read when they are written as events."""
    events = json.loads(path.read_bytes())
    deltas = [each["choices"][0].get("delta", {}) for each in events]
    content = "".join(delta.get("content") or "" for delta in deltas).strip()
    reply = read(b"".join(map(event, events)) + DONE, headers=SSE)[0]
    assert reply.content == content
    assert len(reply.tool_calls) == len(
        {call["id"] for delta in deltas for call in delta.get("tool_calls", ()) if call.get("id")}
    )
    assert all(call.name and call.arguments for call in reply.tool_calls)
    assert [problem.code for problem in reply.problems] == []


@pytest.mark.parametrize("path", captures("*chat__*response@*.json"))
def test_a_captured_body(path: Path) -> None:
    """Content, calls and figures, in every segmentation."""
    wire = path.read_bytes()
    sent = json.loads(wire)
    message = sent["choices"][0]["message"]
    for cut in segmentations(wire):
        reply = read(*cut, headers=JSON)[0]
        assert reply.content == (message.get("content") or "").strip()
        assert [(call.id, call.name) for call in reply.tool_calls] == [
            (call["id"], call["function"]["name"]) for call in message.get("tool_calls") or ()
        ]
        assert reply.usage is not None
        assert reply.usage.to_dict() == {name: sent["usage"][name] for name in reply.usage.to_dict()}
        assert reply.stats.stop_reason == (sent.get("stats") or {}).get("stop_reason")
        assert reply.problems == []


# --- errors inside an answer --------------------------------------------------------------------------------------------

OVERFLOW = (
    "Input does not fit in context length. The input has 31430 tokens, "
    "but the context length only supports 30000 tokens."
)

REPORTED: list[tuple[bytes, type[APIError], str]] = [
    (event({"error": {"message": OVERFLOW}, "message": OVERFLOW}, "error"), ContextLengthError, OVERFLOW),
    (event({"error": {"message": OVERFLOW}}), ContextLengthError, OVERFLOW),
    (
        event({"error": "The model has crashed without additional information. (Exit code: null)"}),
        ModelCrashedError,
        "Exit code: null",
    ),
    (
        event({"type": "error", "error": {"type": "api_error", "message": "It broke"}}, "error"),
        ServerError,
        "It broke.",
    ),
    (
        event({"object": "error", "message": "It broke", "type": "BadRequestError", "code": 400}),
        InvalidRequestError,
        "It broke.",
    ),
    (event({"error": {"message": "It broke", "type": "Internal", "code": 500}}), ServerError, "It broke."),
    (
        event({"id": "x", "object": "chat.completion.chunk", "choices": [], "error": {"message": "It broke"}}),
        ServerError,
        "It broke.",
    ),
    (
        event({"choices": [{"delta": {}, "finish_reason": "error"}], "error": {"message": "It broke"}}),
        ServerError,
        "It broke.",
    ),
    (event({"id": 5, "error": {"message": "It broke"}}), ServerError, "It broke."),
    (event({"message": "It broke"}, "error"), ServerError, "It broke."),
    (event({"id": "x", "message": "It broke"}, "error"), ServerError, "It broke."),
    (event(b"It broke", "error"), ServerError, "It broke."),
    (event(b'"It broke"', "error"), ServerError, "It broke."),
    (event(b"[1, 2]", "error"), ServerError, "1; 2."),
    (event(b"\xff\xfe", "error"), ServerError, "\ufffd\ufffd."),
]


@pytest.mark.parametrize(("wire", "kind", "text"), REPORTED)
@pytest.mark.parametrize("before", [b"", chunk({"content": "Hel"})])
def test_an_error_inside_a_stream(wire: bytes, kind: type[APIError], text: str, before: bytes) -> None:
    """First or in the middle, it is what it means, with the reply so far."""
    for pieces in segmentations(before + wire):
        with pytest.raises(APIError) as caught:
            read(*pieces, headers=SSE)
        assert type(caught.value) is kind
        assert text in caught.value.message
        assert caught.value.status == 200
        assert caught.value.partial is not None
        assert caught.value.partial.content == ("Hel" if before else "")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":"Unexpected endpoint or method. (POST /chat/completions)"}', EndpointNotFoundError),
        (b'{"error":{"message":"Context size has been exceeded."}}', ContextLengthError),
        (b'{"choices":[],"error":{"message":"Channel Error"}}', ModelCrashedError),
        (
            b'{"choices":[{"finish_reason":"error","message":{}}],"error":{"message":"Channel Error"}}',
            ModelCrashedError,
        ),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Busy"}}', ServerError),
        (b'{"id":7,"error":"Model is unloaded."}', ModelCrashedError),
    ],
)
@pytest.mark.parametrize("headers", [SSE, JSON])
def test_an_error_in_a_body_with_a_good_status(body: bytes, kind: type[APIError], headers: dict[str, str]) -> None:
    """LM Studio answers 200 even to a path that it does not know, and to a stream request with a body."""
    for pieces in segmentations(body):
        with pytest.raises(kind) as caught:
            read(*pieces, headers=headers)
        assert caught.value.status == 200


# --- no answers ---------------------------------------------------------------------------------------------------------

HEAD = chunk({"content": "Hel"})


@pytest.mark.parametrize(
    ("wire", "kind", "text"),
    [
        (b"<!DOCTYPE html><html><body>Login</body></html>", MalformedStreamError, "nor JSON: Login"),
        (b"Not found", MalformedStreamError, "neither server-sent events nor JSON: Not found"),
        (b"\x1f\x8b\x08\x00", MalformedStreamError, "server-sent events nor JSON"),
        (b'"text"', MalformedStreamError, "server-sent events nor JSON"),
        (b"", IncompleteStreamError, "no body"),
        (b" \n\n \r\n", IncompleteStreamError, "no body"),
        (b"dat", MalformedStreamError, "not JSON of this API"),
        (b"[1, 2]", MalformedStreamError, "not JSON of this API"),
        (b"{}", MalformedStreamError, "not a chat completion"),
        (b'{"models": []}', MalformedStreamError, "not a chat completion"),
        (b'{"x": "' + "ü".encode() * 400 + b'"}', MalformedStreamError, "not a chat completion"),
        (b'{"choices": 5}', MalformedStreamError, "not JSON of this API"),
        (b'{"choices": "\xff"}', MalformedStreamError, "not JSON of this API"),
        (b'{"a": 1}\n{"b": 2}\n', MalformedStreamError, "not JSON of this API"),
        (b'{"choices":' + b"[" * 5000, LMStudioError, ""),
        (WHOLE[:200], IncompleteStreamError, "cut off in the middle of its JSON"),
        (WHOLE[:-3], IncompleteStreamError, "cut off in the middle of its JSON"),
        (b": ping\n\n" * 3, MalformedStreamError, "contains no event"),
        (HEAD, IncompleteStreamError, "without a finish reason"),
        (HEAD + chunk({}, "stop")[:-10], IncompleteStreamError, "cut off in the middle of an event"),
        (HEAD + b'data: {"choices"', IncompleteStreamError, "cut off in the middle of an event"),
        (HEAD + b"data", IncompleteStreamError, "without a finish reason"),
        (HEAD + event(b"not json") + DONE, MalformedStreamError, "Event 2 of the stream is not a chat completion chunk"),
        (HEAD + event(b'{"choices": 5}'), MalformedStreamError, "Event 2 of the stream is not a chat completion chunk"),
        (HEAD + event({"hello": "world"}), MalformedStreamError, "neither choices nor usage"),
        (HEAD + event(b'{"choices":[{"delta":{"content":"\xff"}}]}'), MalformedStreamError, "Event 2"),
        (HEAD + event(b'{"choices":[{"delta":{"content":"a\x01b"}}]}'), MalformedStreamError, "Event 2"),
        (HEAD + event(b"null"), MalformedStreamError, "Event 2"),
        (DONE, EmptyReplyError, "empty"),
        (chunk({}, "stop") + DONE, EmptyReplyError, "empty"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_typed_error(wire: bytes, kind: type[LMStudioError], text: str) -> None:
    """The error quotes its beginning, however the body was cut."""
    for pieces in segmentations(wire):
        with pytest.raises(kind) as caught:
            read(*pieces, headers=SSE if wire.startswith((b"data", b":")) else {})
        assert text in caught.value.message or (pieces != [wire] and "nor JSON" in text)
        assert len(caught.value.message) < 500
        if wire.startswith(HEAD):
            assert caught.value.partial is not None
            assert caught.value.partial.content == "Hel"


@given(st.binary(max_size=200), st.sampled_from([SSE, JSON, {}]))
def test_no_bytes_whatever_raise_anything_else(data: bytes, headers: dict[str, str]) -> None:
    """Garbage is never an answer, and never a strange exception."""
    with pytest.raises(LMStudioError):
        read(data, headers=headers)


@given(st.sampled_from([TEXT, TOOL, WHOLE]), st.data())
def test_no_broken_byte_raises_anything_else(wire: bytes, data: st.DataObject) -> None:
    """One byte changed, one left out, or the end cut: an answer or a typed error."""
    place = data.draw(st.integers(0, len(wire) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    for broken in (wire[:place] + byte + wire[place + 1 :], wire[:place] + wire[place + 1 :], wire[:place]):
        try:
            reply, _ = read(broken)
        except LMStudioError:
            continue
        assert reply.finish_reason


def test_limits_are_named() -> None:
    """A server that never ends a line, an event or an answer is stopped."""
    with pytest.raises(MalformedStreamError, match="A line of the stream is longer than 100 bytes"):
        read(b"data: ", b"x" * 200, headers=SSE, limits=Limits(line_bytes=100))
    with pytest.raises(MalformedStreamError, match="An event of the stream is larger than 100 bytes"):
        read(b"data: xxxxxxxxx\n" * 20, headers=SSE, limits=Limits(event_bytes=100))
    for wire in (TEXT, WHOLE):
        with pytest.raises(MalformedStreamError, match="The answer is larger than 100 bytes"):
            read(*segmentations(wire)[1], limits=Limits(answer_bytes=100))


def test_a_heartbeat_before_a_body_is_not_kept() -> None:
    """A server that holds the line with blanks while a model loads costs no memory."""
    target = reader(JSON)
    for _ in range(1000):
        assert target.feed(b"\n" * 100) == []
    target.feed(WHOLE)
    target.finish()
    assert target.reply().raw == WHOLE


# --- a broken connection ------------------------------------------------------------------------------------------------


def test_a_connection_that_breaks_after_the_finish_reason_costs_nothing() -> None:
    """The answer is whole; what was missing is noted."""
    target = reader(SSE)
    target.feed(HEAD)
    assert not target.is_whole_without_end(ConnectionLostError("It broke."))
    target.feed(chunk({}, "stop"))
    assert target.is_whole_without_end(ConnectionLostError("It broke."))
    target.finish()
    assert [problem.code for problem in target.reply().problems] == ["end_missing"]


def test_a_partial_reply_has_what_came() -> None:
    """A partial reply has the text and the raw events."""
    target = reader(SSE)
    assert target.partial() == Reply()
    target.feed(HEAD)
    assert target.partial().content == "Hel"
    assert len(target.partial().raw) == 1


# --- plain JSON ---------------------------------------------------------------------------------------------------------


def read_json(*pieces: bytes, status: int = 200) -> object:
    """Read a body that is no chat."""
    target = JSONReader(status, JSON, Limits(answer_bytes=100))
    assert [chunk for piece in pieces for chunk in target.feed(piece)] == []
    assert target.finish() == []
    assert target.partial() is None
    assert not target.is_done
    assert not target.is_whole_without_end(ConnectionLostError("x"))
    return target.value


def test_a_json_body() -> None:
    """It is decoded, however it was cut."""
    for pieces in segmentations(b'{"data": [1, "\xc3\xbc"]}'):
        assert read_json(*pieces) == {"data": [1, "ü"]}
    assert read_json(b"[]") == []


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":"Unexpected endpoint or method. (GET /api/v1/models)"}', EndpointNotFoundError),
        (b"<html></html>", MalformedStreamError),
        (b'{"data": [1', IncompleteStreamError),
        (b"", IncompleteStreamError),
        (b'{"data": "\xff"}', MalformedStreamError),
        (b"x" * 101, MalformedStreamError),
    ],
)
def test_what_is_no_json_body(body: bytes, kind: type[LMStudioError]) -> None:
    """A refusal, a page, half a body and too large a body each raise their error."""
    with pytest.raises(kind):
        read_json(body)


# --- an observer --------------------------------------------------------------------------------------------------------


def observed(*pieces: bytes) -> tuple[list[tuple[bytes, list[Chunk]]], list[Chunk]]:
    """Read pieces; return what an observer was called with, and the chunks."""
    seen: list[tuple[bytes, list[Chunk]]] = []
    target = ChatReader(200, {}, ChatAssembler(), observe=lambda data, chunks: seen.append((data, list(chunks))))
    chunks = [each for piece in pieces for each in target.feed(piece)]
    return seen, chunks + target.finish()


def test_an_observer_sees_the_chunks_of_each_event() -> None:
    """This holds however the events were cut; at the end the observer is called with the last chunks and without data."""
    events = [chunk({"content": "In"}), chunk({"content": "deed."}), chunk({}, "stop")]
    wire = b"".join(events) + DONE.rstrip()
    for pieces in segmentations(wire):
        seen, chunks = observed(*pieces)
        assert [data for data, _ in seen] == [*(each[6:-2] for each in events), b"[DONE]", b""]
        assert [[each.content for each in given] for _, given in seen] == [["In"], ["deed."], [""], [], []]
        assert [each for _, given in seen for each in given] == chunks


def test_an_observer_sees_the_last_chunks_of_an_answer_without_a_finish_reason() -> None:
    """The end of the answer is where they are certain."""
    seen, chunks = observed(chunk({"content": "Hi"}), DONE)
    assert seen == [
        (chunk({"content": "Hi"})[6:-2], [Chunk("Hi")]),
        (b"[DONE]", []),
        (b"", [Chunk(finish_reason="stop")]),
    ]
    assert chunks == [Chunk("Hi"), Chunk(finish_reason="stop")]


@pytest.mark.parametrize(
    "after", [chunk({"content": "!"}), event(b'{"error": "It broke"}'), event(b"nonsense"), b"data: {"]
)
def test_what_follows_the_end_mark_is_not_read(after: bytes) -> None:
    """It is not read even in the same read, so the answer does not depend on the cuts."""
    for end in (chunk({}, "stop") + DONE, DONE):
        for pieces in ([HEAD + end + after], [HEAD, end, after], [HEAD + end, after]):
            for observe in (None, lambda *_: None):
                target = ChatReader(200, SSE, ChatAssembler(), observe=observe)
                for piece in pieces:
                    if not target.is_done:
                        target.feed(piece)
                target.finish()
                assert (target.reply().content, target.reply().finish_reason) == ("Hel", "stop")


def test_an_observer_sees_a_body_whole() -> None:
    for pieces in segmentations(WHOLE):
        seen, chunks = observed(*pieces)
        assert [data for data, _ in seen] == [WHOLE, b""]
        assert [each for _, given in seen for each in given] == chunks


@pytest.mark.parametrize("parser", [StreamParser, lambda: None])
def test_each_text_of_one_read_is_a_chunk(parser: Any) -> None:
    """However many events a read holds, and with markup between them, no text is lost, joined or moved."""
    words = ["One", " two", "\n", "- <b>", "three", "</b>\n\n", "`x[0]`", " {", "}", " \u2013"] * 20
    whole = b"".join(chunk({"content": word}) for word in words) + chunk(finish="stop") + event(b"[DONE]")
    reply, chunks = read(whole, headers=SSE, text_parser=parser())
    assert reply.content == "".join(words)
    assert [each.content for each in chunks if each.content][:2] == ["One", " two"]
    one_by_one, _ = read(*(bytes([byte]) for byte in whole), headers=SSE, text_parser=parser())
    assert one_by_one == reply
    plain = [word for word in words if word.isalpha() or word.isspace()]
    told = read(*([b"".join(chunk({"content": word}) for word in plain)]), chunk(finish="stop"), text_parser=parser())[
        1
    ]
    assert [each.content for each in told if each.content] == plain


TEXTS = st.one_of(
    st.text(max_size=5), st.sampled_from(["assistant", '"', "\\", 'a","x":"b', "?", "1", "\n", "", "naïve", "\u2028"])
)
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, TEXTS),
    st.builds(lambda text: {"role": "assistant", "content": text}, TEXTS),
    st.builds(lambda text: {"reasoning_content": text}, TEXTS),
    st.builds(lambda text: {"content": text, "reasoning_content": text}, TEXTS),
    st.builds(lambda text: {"content": text, "refusal": text}, TEXTS),
    st.builds(lambda text: {"content": [{"type": "text", "text": text}]}, TEXTS),
    st.just(tool("1", "f", "{}")),
)
CHOICES = st.fixed_dictionaries(
    {
        "index": st.sampled_from([0, 0, 0, 0, 1]),
        "delta": DELTAS,
        "finish_reason": st.sampled_from([None, None, None, None, None, "stop"]),
        "logprobs": st.sampled_from([None, None, None, {"content": [{"token": "a", "logprob": -1.0}]}]),
    }
)


def result_of(events: list[bytes], parser: Any) -> tuple[object, list[Chunk]]:
    """Read events, each in a read of its own; return the reply without its bytes, or the error's kind, and the chunks."""
    target, chunks = reader(SSE, text_parser=parser), list[Chunk]()
    try:
        for each in [*events, chunk({}, "stop"), DONE]:
            chunks += target.feed(each)
        chunks += target.finish()
    except LMStudioError as error:
        return type(error), chunks
    return msgspec.structs.replace(target.reply(), raw=None), chunks


@given(st.lists(CHOICES, max_size=12), st.booleans(), st.booleans())
def test_events_that_differ_only_in_their_text_mean_what_they_say(
    choices: list[dict[str, Any]], escapes: bool, has_parser: bool
) -> None:
    """The text is cut out of them; the same events with a time that ticks are decoded whole, each of them."""

    def written(times: list[int]) -> list[bytes]:
        heads = ({"id": "c", "model": "m", "created": time} for time in times)
        payloads = ({**head, "choices": [choice]} for head, choice in zip(heads, choices, strict=True))
        return [event(json.dumps(payload, ensure_ascii=escapes).encode()) for payload in payloads]

    def parser() -> StreamParser | None:
        return StreamParser() if has_parser else None

    alike = result_of(written([7] * len(choices)), parser())
    assert alike == result_of(written(list(range(len(choices)))), parser())


@pytest.mark.parametrize(
    "odd",
    [rb"\ud83d", b"\x01", b"\xff", b'","reasoning_content":"b', b'"},"finish_reason":"stop","x":{"y":"', b'" , "z": "'],
)
def test_what_stands_in_the_place_of_a_text_is_checked_like_any_json(odd: bytes) -> None:
    """After events that differ only in their text, one that breaks out of the string, or is broken, is read whole."""
    alike = [event(b'{"id":"c","model":"m","created":1,"choices":[{"index":0,"delta":{"content":"%s"}}]}' % text) for text in
             (b"One", b" two", odd, b" three")]  # fmt: skip
    ticking = [each.replace(b'"created":1', b'"created":%d' % time) for time, each in enumerate(alike)]
    assert result_of(alike, None) == result_of(ticking, None)


def test_a_text_that_stands_elsewhere_in_its_event_too_is_read_right() -> None:
    """The answer says its own id and the name of the model."""
    words = ["c", "m", "c", "assistant", "content", "?", " yes", "c"]
    events = [
        event(b'{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%s"}}]}' % word.encode())
        for word in words
    ]
    reply, chunks = result_of(events, None)
    assert [each.content for each in chunks if each.content] == words
    assert isinstance(reply, Reply)
    assert (reply.content, reply.id, reply.model) == ("".join(words), "c", "m")


def test_an_error_after_texts_of_the_same_read_has_them_in_its_partial_reply() -> None:
    """The texts come first, then the error."""
    target = reader(SSE, text_parser=StreamParser())
    texts = [chunk({"content": word}) for word in ("One", " two", " three")]
    assert [each.content for each in target.feed(b"".join([*texts, event(b"{broken")]))] == ["One", " two", " three"]
    assert isinstance(target.failure, MalformedStreamError)
    assert target.failure.partial is not None
    assert target.failure.partial.content == "One two three"
    with pytest.raises(MalformedStreamError):
        target.feed(chunk({"content": " four"}))


def test_reasoning_of_its_own_channel_is_one_chunk_without_the_tags_in_it() -> None:
    reply, chunks = read(
        chunk({"reasoning_content": "<think>Hm.</think>So."}), chunk({"content": "Hi"}), chunk(finish="stop"),
        headers=SSE, text_parser=StreamParser(),
    )  # fmt: skip
    assert (reply.reasoning, reply.content) == ("Hm.So.", "Hi")
    assert [each.reasoning for each in chunks if each.reasoning] == ["Hm.So."]


def test_reasoning_in_the_content_may_come_in_several_events_of_one_read() -> None:
    words = ["Hm", ", rain", " again."]
    reply, chunks = read(
        chunk({"content": "<think>Oh. "}), b"".join(chunk({"content": word}) for word in words),
        chunk({"content": "</think>Hi"}), chunk(finish="stop"), headers=SSE, text_parser=StreamParser(),
    )  # fmt: skip
    assert (reply.reasoning, reply.content) == ("Oh. Hm, rain again.", "Hi")
    assert "".join(each.reasoning for each in chunks) == "Oh. Hm, rain again."


@pytest.mark.parametrize("is_streamed", [True, False])
@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_the_older_field_for_one_call_is_read(is_streamed: bool, arguments: object) -> None:
    """OpenAI's `function_call`, which some servers still send (llama-cpp-python, LocalAI)."""
    call = {"name": "add", "arguments": arguments}
    fields: list[dict[str, object]] = [{"content": None, "function_call": call}]
    if is_streamed and isinstance(arguments, str):
        fields = [{"function_call": {"name": "add"}}, *({"function_call": {"arguments": char}} for char in arguments)]
    choices = [{"index": 0, "delta" if is_streamed else "message": delta} for delta in fields]
    choices[-1]["finish_reason"] = "function_call"
    bodies = [json.dumps({"choices": [choice]}).encode() for choice in choices]
    pieces = [b"data: %s\n\n" % body for body in bodies] if is_streamed else bodies
    reply, chunks = read(*pieces)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("add", {"a": 1})]
    assert (reply.finish_reason, reply.problems) == ("tool_calls", [])
    assert "".join(chunk.tool_call_delta.name for chunk in chunks if chunk.tool_call_delta) == "add"


def test_a_call_in_the_older_field_too_counts_once() -> None:
    function = {"name": "add", "arguments": "{}"}
    message = {"tool_calls": [{"id": "1", "type": "function", "function": function}], "function_call": function}
    reply, _ = read(json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode())
    assert [call.id for call in reply.tool_calls] == ["1"]


def test_an_empty_call_in_the_older_field_is_none() -> None:
    message = {"content": "Hi", "function_call": {"name": "", "arguments": ""}}
    reply, _ = read(json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode())
    assert (reply.content, reply.tool_calls, reply.problems) == ("Hi", [], [])


def test_an_event_that_only_continues_the_text_is_read_as_such() -> None:
    """If it comes alone, is like the last one, and is as the caller expects; otherwise nothing is read."""

    def event(text: str) -> bytes:
        return b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()

    head, tail = event("|").removeprefix(b"data: ").removesuffix(b"\n\n").split(b"|")
    target, chunks = reader(SSE, limits=Limits(answer_bytes=400)), list[Chunk]()
    assert target.continue_text(event("a"), (head, tail), chunks) == ""
    target.feed(event("a"))
    target.feed(event("b"))
    for other in (event("c") + event("c"), event("c")[:-1], event("c")[5:], event("c").replace(b"data", b"date"), b""):
        assert target.continue_text(other, (head, tail), chunks) == ""
    assert target.continue_text(event("c"), (head, tail + b" "), chunks) == ""
    assert target.continue_text(event("c"), (head, tail), chunks) == "c"
    target.feed(event("d")[:9])
    assert target.continue_text(event("d"), (head, tail), chunks) == ""
    target.feed(event("d")[9:])
    assert chunks == [Chunk("c")]
    assert target.partial().content == "abcd"
    assert target.partial().raw == [event(each)[6:-2] for each in "abcd"]
    assert target.continue_text(event("e" * 300), (head, tail), chunks) == ""


def test_an_event_that_lacks_a_field_name_is_not_one_that_continues_the_text() -> None:
    """The line `"choices": …` is an unknown field, even after events whose data has the same bytes."""
    event = b'data: {"id":"c",\ndata: "choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    with pytest.raises(MalformedStreamError, match="Event 4"):
        read(
            event % b"one", event % b"two", event % b"three", (event % b"four").replace(b"\ndata: ", b"\n"), headers=SSE
        )


def written_chunk(text: bytes, more: bytes = b"") -> bytes:
    """Return an event with a text as its bytes stand in the JSON, and more members behind the choices."""
    return (
        b'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"'
        + text
        + b'"},"finish_reason":null}]'
        + more
        + b"}\n\n"
    )


@pytest.mark.parametrize("name", [b"usage", b"stats", b"timings"])
def test_figures_that_are_not_utf8_cost_no_answer(name: bytes) -> None:
    broken = b',"' + name + b'":{"prompt_tokens":"x","text":"\xff"}'
    streamed, _ = read(written_chunk(b"Hi", broken), b"data: [DONE]\n\n", headers=SSE)
    choice = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]'
    whole, _ = read(choice + broken + b"}", headers=JSON)
    assert (streamed.content, whole.content) == ("Hi", "Hi")


@pytest.mark.parametrize("text", [b"\\x", b"\xff"])
def test_a_broken_text_is_found_behind_events_that_differ_only_in_their_text(text: bytes) -> None:
    """Such events are decoded as one string each, this one as a whole again."""
    words = [written_chunk(word) for word in (b"one", b"two", b"three", b"four")]
    with pytest.raises(MalformedStreamError, match="Event 5"):
        read(*words, written_chunk(text), headers=SSE)


def test_half_a_surrogate_pair_in_a_broken_event_does_not_hide_that_it_is_broken() -> None:
    with pytest.raises(MalformedStreamError, match="Event 1"):
        read(written_chunk(b"\\ud83d", b',"id":[5]'), headers=SSE)


def test_one_delta_may_go_on_with_a_call_and_begin_another() -> None:
    """It may also report a call without anything new between them."""
    first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}
    rest, second = {"index": 0, "function": {"arguments": " 1}"}}, {"index": 1, "id": "b", "function": {"name": "g"}}
    nothing = {"index": 0, "function": {"name": "", "arguments": ""}}
    reply, _ = read(
        chunk({"tool_calls": [first]}), chunk({"tool_calls": [rest, nothing, second]}, "tool_calls"), headers=SSE
    )
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("f", {"x": 1}), ("g", {})]


def test_an_event_that_only_continues_the_text_is_counted_where_no_raw_text_is_kept() -> None:
    head, tail = written_chunk(b"|").removeprefix(b"data: ").removesuffix(b"\n\n").split(b"|")
    target, chunks = reader(SSE, limits=Limits(raw_bytes=0)), list[Chunk]()
    for word in (b"one", b"two"):
        target.feed(written_chunk(word))
    assert target.continue_text(written_chunk(b"six"), (head, tail), chunks) == "six"
    assert (target.partial().content, target.partial().raw) == ("onetwosix", [])


def test_events_of_one_read_that_contain_markup_are_read_one_by_one() -> None:
    """This holds before a call, inside it, and inside reasoning."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
    words = [
        b"It ",
        b"is ",
        b"read.",
        b"<tool_",
        b"call>",
        b'{\\"name\\": \\"f\\", ',
        b'\\"arguments\\": {\\"a\\": ',
        b"1}}",
        b"</tool_call>",
    ]
    events = [written_chunk(word) for word in words]
    thought = chunk({"reasoning_content": "Hm."})
    pieces = [thought, b"".join(events[:3]), b"".join(events[3:6]), b"".join(events[6:]), chunk({}, "stop")]
    reply, _ = read(*pieces, headers=SSE, text_parser=StreamParser([tool]))
    assert (reply.reasoning, reply.content) == ("Hm.", "It is read.")
    assert [call.arguments for call in reply.tool_calls] == [{"a": 1}]


def test_a_parser_that_was_fed_nothing_ends_with_nothing() -> None:
    assert StreamParser().finish() == []
