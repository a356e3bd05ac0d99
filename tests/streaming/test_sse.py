"""Server-sent events: the specification's rules, every place to cut, and the limits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._encoders.event_stream import encode_comment, encode_event
from lmdeck._limits import Limits
from lmdeck._streaming.sse import ServerSentEvent, SSEDecoder
from lmdeck.errors import MalformedStreamError

BOM = b"\xef\xbb\xbf"
SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"  # what `str.splitlines` takes for line ends
NASTY = (
    BOM
    + b": a comment\r\n\r\n"
    + b'data: {"a":"\xe2\x82\xac \xf0\x9f\x98\x80"}\r\n\r\n'
    + b"data:no space\n\n"
    + b"event: error\rdata: one\rdata:  two\r\r"
    + f'data: {{"separators":"{SEPARATORS}"}}\n\n'.encode()
    + b"id: 7\nretry: 10\ndata\n\n"
    + b": heartbeat\n\n\n\r\n\r"
    + b"event: lost\n\n"
    + b"data: first\ndata:\ndata: third\r\n\n"
    + b"event: pair\r\ndata: a\r\ndata: b\r\n\r\n"
    + b"unknown: x\ndata: [DONE]\n\n"
)
EVENTS = [
    ServerSentEvent('{"a":"€ 😀"}'.encode()),
    ServerSentEvent(b"no space"),
    ServerSentEvent(b"one\n two", "error"),
    ServerSentEvent(f'{{"separators":"{SEPARATORS}"}}'.encode()),
    ServerSentEvent(b""),
    ServerSentEvent(b"first\n\nthird"),
    ServerSentEvent(b"a\nb", "pair"),
    ServerSentEvent(b"[DONE]"),
]


def decode(*pieces: bytes, limits: Limits | None = None) -> list[ServerSentEvent]:
    """Feed the pieces and the end."""
    decoder = SSEDecoder(limits or Limits())
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.finish()


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut at these places; a place may come twice, which gives an empty piece."""
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def test_a_nasty_sample_is_read_whole() -> None:
    """All of the rules at once, in one read and byte by byte."""
    assert decode(NASTY) == EVENTS
    assert decode(*(bytes([byte]) for byte in NASTY)) == EVENTS


@pytest.mark.parametrize("cut", range(len(NASTY) + 1))
def test_a_read_may_end_anywhere(cut: int) -> None:
    """Inside a UTF-8 sequence, between CR and LF, inside the BOM: it does not matter."""
    assert decode(NASTY[:cut], NASTY[cut:]) == EVENTS


@given(st.lists(st.integers(0, len(NASTY)), max_size=40))
def test_any_number_of_reads_gives_the_same(cuts: list[int]) -> None:
    """Empty reads included."""
    assert decode(*pieces_of(NASTY, cuts)) == EVENTS


@given(
    st.data(), st.lists(st.sampled_from([b"data: x", b"data:", b"event: e", b":", b"\n", b"\r", b"\r\n", b" ", BOM]))
)
def test_no_stream_depends_on_its_cuts(data: st.DataObject, parts: list[bytes]) -> None:
    """This holds even for one that makes no sense."""
    stream = b"".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert decode(*pieces_of(stream, cuts)) == decode(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_ends_a_line(end: bytes) -> None:
    """CR, LF and CRLF end a line, and nothing else does."""
    assert decode(end.join([b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])) == [
        ServerSentEvent(b"1\n2"),
        ServerSentEvent(b"3"),
    ]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of the specification, section 9.2.6.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [ServerSentEvent(b"YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
         [ServerSentEvent(b"first event"), ServerSentEvent(b"second event"), ServerSentEvent(b" third event")]),
        (b"data\n\ndata\ndata\n\ndata:", [ServerSentEvent(b""), ServerSentEvent(b"\n"), ServerSentEvent(b"")]),
        (b"data:test\n\ndata: test\n\n", [ServerSentEvent(b"test"), ServerSentEvent(b"test")]),
        # Names.
        (b"event: add\ndata: 1\n\ndata: 2\n\n", [ServerSentEvent(b"1", "add"), ServerSentEvent(b"2")]),
        (b"data: 1\nevent: add\n\n", [ServerSentEvent(b"1", "add")]),
        (b"event: gone\n\ndata: 1\n\n", [ServerSentEvent(b"1")]),
        (b"event: a\nevent: b\ndata: 1\n\n", [ServerSentEvent(b"1", "b")]),
        (b"event: \xff\ndata: 1\n\n", [ServerSentEvent(b"1", "\ufffd")]),
        # llama.cpp until 2025, with text before it and without.
        (b'data: 1\n\nerror: {"code":500}\n\n', [ServerSentEvent(b"1"), ServerSentEvent(b'{"code":500}', "error")]),
        # What is no field.
        (b"Data: 1\n\n data: 2\n\ndatax: 3\n\n", []),
        (b"data : 1\n\n", []),
        (b"{}\n\n", []),
        # The byte-order mark belongs to the start only.
        (BOM + b"data: 1\n\n" + BOM + b"data: 2\n\n", [ServerSentEvent(b"1")]),
        (BOM + b"data: 1", [ServerSentEvent(b"1")]),
        (BOM, []),
        # The end.
        (b"", []),
        (b"\n\n\n", []),
        (b"data: 1\n", [ServerSentEvent(b"1")]),
        (b"data: 1\r", [ServerSentEvent(b"1")]),
        (b"event: a\ndata: 1", [ServerSentEvent(b"1", "a")]),
        # Data is bytes: whether they are text is a JSON decoder's question.
        (b"data: \xff\xfe\n\n", [ServerSentEvent(b"\xff\xfe")]),
        (b"data: a:b: c\n\n", [ServerSentEvent(b"a:b: c")]),
    ],
)  # fmt: skip
def test_the_rules_of_the_specification(stream: bytes, events: list[ServerSentEvent]) -> None:
    """Field by field, in one read and byte by byte."""
    assert decode(stream) == events
    assert decode(*(bytes([byte]) for byte in stream)) == events


def test_events_come_as_soon_as_they_are_whole() -> None:
    """Nothing waits for the next read, not even a lone CR for its LF."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: 1\r\r") == [ServerSentEvent(b"1")]
    assert decoder.feed(b"\ndata: 2\n") == []
    assert decoder.feed(b"\n") == [ServerSentEvent(b"2")]


# --- limits -----------------------------------------------------------------------------------------------------------

SMALL = Limits(line_bytes=32, event_bytes=64)


def test_a_line_without_end_is_refused_in_time() -> None:
    """The limit is named, and no more than it is kept."""
    decoder = SSEDecoder(SMALL)
    decoder.feed(b"x" * 32)
    with pytest.raises(MalformedStreamError, match="A line of the stream is longer than 32 bytes"):
        decoder.feed(b"x")


@pytest.mark.parametrize("line", [b"data: 0123456789\n", b"data:0123456789\n", b"data:\n"])
def test_an_event_without_end_is_refused_in_time(line: bytes) -> None:
    """Every line counts, the first and an empty one too."""
    with pytest.raises(MalformedStreamError, match="An event of the stream is larger than 64 bytes"):
        decode(*[line] * 80, limits=SMALL)


@pytest.mark.parametrize("event", [b"data: 0123456789\n\n", b"data:0123456789\n\n", b"event: e\ndata: 1\ndata: 2\n\n"])
def test_the_limits_are_for_one_event_and_not_for_the_stream(event: bytes) -> None:
    """A long answer is many small events, with and without a space after the colon."""
    assert len(decode(*[event] * 100, limits=SMALL)) == 100


def test_comments_count_for_nothing() -> None:
    """A server may send heartbeats for hours."""
    assert decode(*[b": still here\n\n"] * 1000, b"data: 1\n\n", limits=SMALL) == [ServerSentEvent(b"1")]


def test_a_line_in_many_pieces_is_joined_once() -> None:
    """Work is counted, not timed: a byte at a time, nothing is copied before the line ends."""
    decoder = SSEDecoder()
    for _ in range(10_000):
        decoder.feed(b"x")
    assert len(decoder._partial) == 10_000
    assert decoder.feed(b"\n") == []
    assert decoder.finish() == []


# --- the encoder ------------------------------------------------------------------------------------------------------

lines = st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b""))
names = st.text(max_size=10).filter(lambda name: not {"\r", "\n"} & set(name) and name.isprintable())


@given(st.lists(st.tuples(st.lists(lines, min_size=1, max_size=4).map(b"\n".join), names), max_size=5), st.data())
def test_what_is_encoded_is_decoded(events: list[tuple[bytes, str]], data: st.DataObject) -> None:
    """Any data and any name come back, however the reads fall."""
    stream = b"".join(encode_event(payload, name or None) for payload, name in events)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert decode(*pieces_of(stream, cuts)) == [ServerSentEvent(payload, name) for payload, name in events]


def test_decoded_events_are_encoded_as_they_were() -> None:
    """There and back gives the same events."""
    assert decode(b"".join(encode_event(event.data, event.event or None) for event in EVENTS)) == EVENTS


def test_the_encoder_s_bytes() -> None:
    """The form that LM Studio itself sends."""
    assert encode_event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert encode_event(b"1\r\n2\r3", "e") == b"event: e\ndata: 1\ndata: 2\ndata: 3\n\n"
    assert encode_comment("still\nhere") == b": still\n: here\n\n"
    assert decode(encode_comment("data: 1")) == []


@pytest.mark.parametrize("name", ["a\nb", "a\r", "\r\ndata: x"])
def test_a_name_with_a_line_end_is_refused(name: str) -> None:
    """It would be two lines."""
    with pytest.raises(ValueError, match="line end"):
        encode_event(b"", name)
