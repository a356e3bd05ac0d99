"""Heads of answers: every form that HTTP/1.1 allows is read right, and others are an error, never half an answer."""

from __future__ import annotations

import json

import pytest

from asking import Way, lm
from lmdeck import APIError, LMStudioError, MalformedStreamError
from loopback import CLOSE, Loopback, chunk, completion, head

BODY = json.dumps(completion("Hello.")).encode()
LENGTH = b"Content-Length: %d" % len(BODY)
JSON = b"Content-Type: application/json"

ALLOWED: dict[str, list[bytes]] = {
    "lower case": [JSON.lower(), LENGTH.lower()],
    "upper case": [JSON.upper(), LENGTH.upper()],
    "no space": [JSON, LENGTH.replace(b" ", b"")],
    "blanks around": [JSON, LENGTH.replace(b" ", b" \t ") + b" \t "],
    "empty value": [JSON, b"X-Empty:", LENGTH],
    "Latin-1": [JSON, "X-Name: Müller".encode("latin-1"), LENGTH],
    "colons": [JSON, b"X-Time: 12:30:00", LENGTH],
    "every character of a name": [JSON, b"!#$%&'*+.^_`|~09azAZ-: yes", LENGTH],
    "repeated": [JSON, b"Set-Cookie: a=1", LENGTH, b"Set-Cookie: b=2"],
    "ninety": [JSON, *[b"X-Filler: yes"] * 90, LENGTH],
    "keep-alive": [JSON, b"Connection: keep-alive", b"Keep-Alive: timeout=5", LENGTH],
    "close": [JSON, b"Connection: close", LENGTH],
    "chunked": [JSON, b"Transfer-Encoding: Chunked"],
    "long": [JSON, b"X-Filler: " + b"y" * 30_000, LENGTH],
    "a hundred and twenty": [JSON, *[b"X-Filler: yes"] * 118, LENGTH],
}
REFUSED: dict[str, list[bytes]] = {
    "no colon": [JSON, b"this is no header", LENGTH],
    "no name": [JSON, b": value", LENGTH],
    "space in a name": [JSON, b"X Header: value", LENGTH],
    "NUL": [JSON, b"X-Header: a\0b", LENGTH],
    "too many": [JSON, *[b"X-Filler: yes"] * 20_000, LENGTH],
    "too long": [JSON, b"X-Filler: " + b"y" * 100_000, LENGTH],
    "lengths that differ": [JSON, LENGTH, b"Content-Length: 3"],
    "no length": [JSON, b"Content-Length: many"],
    "empty length": [JSON, b"Content-Length:"],
    "negative length": [JSON, b"Content-Length: -5"],
    "hexadecimal length": [JSON, b"Content-Length: 0x10"],
    "length of 6,000 digits": [JSON, b"Content-Length: " + b"9" * 6000],
}
ALLOWED_STATUS = ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 201 Ja, gut! \u00a9", "HTTP/1.0 200 OK"]
REFUSED_STATUS = [
    "HTTP/1.1 200\tOK", "HTTP/2 200 OK", "HTTP/1 200 OK", "ICY 200 OK", "HTTP/1.1 2OO OK", "HTTP/1.1 20 OK", " HTTP/1.1 200",
]  # fmt: skip


def answer(lines: list[bytes], end: bytes = b"\r\n", status: str = "HTTP/1.1 200 OK") -> bytes:
    """An answer with this head; its body is chunked where the head says so."""
    is_chunked = any(line.lower().startswith(b"transfer-encoding") for line in lines)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY) if is_chunked else BODY
    return end.join([status.encode("latin-1"), *lines, b"", b""]) + body


@pytest.mark.parametrize("name", ALLOWED)
def test_an_allowed_head_is_read(way: Way, name: str) -> None:
    """The answer is right, and read to its end although the connection stays open."""
    with Loopback([answer(ALLOWED[name])]) as server:
        assert way.ask(server.url).content == "Hello."


@pytest.mark.parametrize("status", ALLOWED_STATUS)
def test_an_allowed_status_line_is_read(way: Way, status: str) -> None:
    """RFC 9112, section 4: a reason may be missing, and may have any characters of Latin-1."""
    with Loopback([answer([JSON, LENGTH], status=status)]) as server:
        assert way.ask(server.url).content == "Hello."


@pytest.mark.parametrize("status", REFUSED_STATUS)
def test_a_broken_status_line_is_an_error(way: Way, status: str) -> None:
    with Loopback([answer([JSON, LENGTH], status=status), CLOSE]) as server:
        assert isinstance(way.fail(server.url), MalformedStreamError)


def test_a_head_with_bare_returns_swallows_no_event(way: Way) -> None:
    """Read as one status line, it would reach to the first end of a line of the body."""
    lines = answer([b"Content-Type: text/event-stream"], end=b"\r").removesuffix(BODY)
    with Loopback([lines + chunk("Hel") + chunk("lo.") + chunk(finish="stop"), CLOSE]) as server:
        assert isinstance(way.fail(server.url), MalformedStreamError)


def test_a_change_of_protocol_is_no_answer(way: Way) -> None:
    with Loopback([head(101, upgrade="websocket", connection="Upgrade"), CLOSE]) as server:
        error = way.fail(server.url)
    assert isinstance(error, APIError)
    assert error.status == 101


@pytest.mark.parametrize(("field", "connections"), [(b"Connection: keep-alive", 1), (b"Connection: close", 2)])
def test_a_connection_is_used_again_where_its_head_says_so(field: bytes, connections: int) -> None:
    """It is by default in HTTP/1.1, and not where the server is about to close it."""
    whole = [answer([JSON, field, LENGTH])]
    with Loopback(whole, whole) as server, lm(server.url) as client:
        assert [client.chat().user("Hi").send().content for _ in range(2)] == ["Hello."] * 2
        assert len(server.connections) == connections


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_head_is_an_error(way: Way, name: str) -> None:
    """Nothing is guessed: what follows a line that is no field might be anything."""
    with Loopback([answer(REFUSED[name]), CLOSE]) as server:
        error = way.fail(server.url)
    assert isinstance(error, MalformedStreamError)
    assert "valid HTTP" in error.message


@pytest.mark.parametrize(
    "lines",
    [
        [JSON, b"X-Folded: a", b" b", b"\tc", LENGTH],
        [JSON, b" folded onto it", LENGTH],
        [JSON, LENGTH, LENGTH],
        [JSON, LENGTH.replace(b": ", b": +")],
        [JSON, LENGTH, b"Transfer-Encoding: chunked"],
        [JSON, b"X-Header: a\rX-Other: b", LENGTH],
        [b" begins folded", JSON, LENGTH],
    ],
    ids=lambda lines: repr(lines[1][:30]),
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_a_doubtful_head_is_read_or_refused(way: Way, lines: list[bytes], end: bytes) -> None:
    """The answer is right or there is a typed error; the two HTTP libraries differ in which."""
    with Loopback([answer(lines, end), CLOSE]) as server:
        try:
            content = way.ask(server.url).content
        except LMStudioError:
            return
    assert content == "Hello."


@pytest.mark.parametrize("kept", [5, 30, 60, -len(BODY) - 2])
def test_a_cut_head_is_an_error(way: Way, kept: int) -> None:
    """A head that does not end is no head, even where all of its fields are there."""
    with Loopback([answer([JSON, LENGTH])[:kept], CLOSE]) as server:
        assert isinstance(way.fail(server.url), LMStudioError)
