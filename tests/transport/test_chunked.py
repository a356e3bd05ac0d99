"""The chunked coding: every place to cut, what may stand in it, and what may not."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdeck._transport.chunked import MAX_SIZE_LINE, MAX_TRAILERS, ChunkedDecoder, ChunkedError

WIRE = (
    b"5\r\nHello\r\n"
    b"2;name=value\r\n\r\n\r\n"
    b'00A ; ext="x"\r\n0123456789\r\n'
    b"1\r\n\xff\r\n"
    b"0;last\r\nTrailer: 1\r\nOther: 2\r\n\r\n"
)
BODY = b"Hello\r\n0123456789\xff"
AFTER = b"HTTP/1.1 200 OK"


def decode(*pieces: bytes) -> tuple[bytes, bool, bytes]:
    """Feed pieces until the body has ended; give body, whether it ended, and what came after it."""
    decoder, body, excess = ChunkedDecoder(), b"", b""
    for piece in pieces:
        if decoder.is_finished:
            excess += piece
        else:
            body += decoder.feed(piece)
    return body, decoder.is_finished, decoder.excess + excess


def encode(chunks: list[bytes]) -> bytes:
    """Write a body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(WIRE + AFTER) + 1))
def test_a_read_may_end_anywhere(cut: int) -> None:
    """Inside a size, between CR and LF, in a trailer: the body is the same, and so is what follows it."""
    whole = WIRE + AFTER
    assert decode(whole[:cut], whole[cut:]) == (BODY, True, AFTER)


def test_byte_by_byte() -> None:
    """The smallest reads there are."""
    assert decode(*(bytes([byte]) for byte in WIRE)) == (BODY, True, b"")


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_body_in_any_chunks_and_any_reads(chunks: list[bytes], data: st.DataObject) -> None:
    """The body, its chunks and the reads are cut independently of each other."""
    wire = encode(chunks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    places = [0, *cuts, len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(places)]
    assert decode(*pieces) == (b"".join(chunks), True, b"")


@pytest.mark.parametrize("end", range(len(WIRE) - 1))
def test_a_body_that_was_cut_has_not_ended(end: int) -> None:
    """No prefix of a body is a body."""
    body, is_finished, _ = decode(WIRE[:end])
    assert not is_finished
    assert BODY.startswith(body)


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x5\r\nHello\r\n",
        b"1_0\r\n",
        b" 5\r\nHello\r\n",
        b"5 5\r\n",
        b";ext\r\n",
        b"5\r\nHelloX\n",
        b"5\r\nHello\nX",
        b"5\r\nHello\r\rX",
        b"5\r\nHello5\r\n",
        b"5\r\nHello!!3\r\nabc\r\n",
        b"1000000000000000\r\n",
        b"\xd9\xa5\r\n",
        b"HTTP/1.1 500\r\n",
        b"x" * (MAX_SIZE_LINE + 1),
        b"0\r\n" + b"x" * (MAX_TRAILERS + 1),
    ],
)
def test_broken_framing_is_reported(wire: bytes) -> None:
    """The error is raised in one read and byte by byte, and never read as part of the body."""
    with pytest.raises(ChunkedError):
        decode(wire)
    with pytest.raises(ChunkedError):
        decode(*(bytes([byte]) for byte in wire))


def test_a_wrong_end_is_reported_with_the_first_wrong_byte() -> None:
    """What cannot become right any more is not waited for."""
    decoder = ChunkedDecoder()
    assert decoder.feed(b"5\r\nHello") == b"Hello"
    with pytest.raises(ChunkedError, match="longer than its size"):
        decoder.feed(b"X")


def test_data_is_given_as_it_comes() -> None:
    """A large chunk does not wait for its end."""
    decoder = ChunkedDecoder()
    assert decoder.feed(b"a\r\n01234") == b"01234"
    assert decoder.feed(b"567") == b"567"
    assert decoder.feed(b"89\r\n1\r\nx\r\n0\r\n\r\nrest") == b"89x"
    assert decoder.is_finished
    assert decoder.excess == b"rest"
