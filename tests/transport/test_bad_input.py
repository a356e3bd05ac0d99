"""Whatever a server does, the four ways to ask end with the error that `API.md` names, in time, telling what to do."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asking import Way
from lmdeck import (
    APIError,
    ConfigurationError,
    ConnectionLostError,
    EmptyReplyError,
    EndpointNotFoundError,
    IncompleteStreamError,
    InvalidRequestError,
    LMStudioError,
    MalformedStreamError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
    TransportError,
)
from loopback import (
    CLOSE,
    HANG,
    PATIENCE,
    RESET,
    SSE_HEAD,
    Answer,
    Loopback,
    Request,
    Step,
    chunk,
    completion,
    events,
    head,
    hello,
    http_chunks,
    json_answer,
    text_answer,
)
from ports import free_port

HTML = "<!doctype html><html><head><title>Sign in</title></head><body>Welcome to the router</body></html>"
JSON = json.dumps(completion()).encode()
HALF_JSON = JSON[: len(JSON) // 2]
SSE = {"content_type": "text/event-stream"}
BIG = 1 << 30

Expected = type[LMStudioError]

REFUSED: dict[str, tuple[Answer, Expected, str]] = {
    "html": (text_answer(HTML, content_type="text/html"), MalformedStreamError, "text/html"),
    "html-502": (text_answer(HTML, 502, content_type="text/html"), ServerError, "web page"),
    "error-object": (json_answer({"error": {"message": "the cat sat down"}}), APIError, "the cat sat down"),
    "error-text": (json_answer({"error": "the cat sat down"}), APIError, "the cat sat down"),
    "wrong-path": (
        json_answer({"error": "Unexpected endpoint or method. (POST /v1/chat/completions)"}),
        EndpointNotFoundError,
        "Unexpected endpoint",
    ),
    "not-a-chat": (json_answer({"hello": "world"}), MalformedStreamError, "not a chat completion"),
    "a-list": (json_answer([1, 2]), MalformedStreamError, "not JSON of this API"),
    "empty-body": (text_answer(""), IncompleteStreamError, "no body"),
    "no-words": (json_answer(completion("")), EmptyReplyError, ""),
    "words-only": (text_answer("It works!"), MalformedStreamError, "It works!"),
    "not-utf-8": (text_answer(JSON.replace(b"Hello", b"\xff\xfe\xc3\x28")), MalformedStreamError, ""),
    "binary": (text_answer(bytes(range(128, 256)) * 20), MalformedStreamError, ""),
    "too-deep": (text_answer(b'{"choices":' + b"[" * 100_000), LMStudioError, ""),
    "not-http": ([b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE], MalformedStreamError, "SSH-2.0"),
    "not-http-binary": ([b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n", CLOSE], MalformedStreamError, ""),
    "no-answer": ([CLOSE], ConnectionLostError, ""),
    "half-a-head": ([b"HTTP/1.1 200 OK\r\nContent-Ty", CLOSE], LMStudioError, ""),
    "reset": ([RESET], ConnectionLostError, ""),
    "reset-after-head": ([head(content_length=100), 0.05, RESET], ConnectionLostError, ""),
    "bad-chunk-size": ([SSE_HEAD, b"xyz\r\nabc\r\n0\r\n\r\n"], MalformedStreamError, "valid HTTP"),
    "bad-chunk-end": ([SSE_HEAD, b"3\r\nabcdef\r\n0\r\n\r\n"], MalformedStreamError, "valid HTTP"),
    "no-gzip": (text_answer(JSON, content_encoding="gzip"), MalformedStreamError, "valid HTTP"),
    "endless-head": (
        [b"HTTP/1.1 200 OK\r\n" + b"X-Filler: yes\r\n" * 100_000, CLOSE],
        MalformedStreamError,
        "valid HTTP",
    ),
    "teapot": (json_answer({"error": "I am a teapot"}, 418), InvalidRequestError, "teapot"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_answer_is_a_typed_error(way: Way, name: str) -> None:
    """No answer that a wrong or broken server can give is taken for a reply, and none escapes untyped."""
    answer, expected, words = REFUSED[name]
    with Loopback(answer) as server:
        error = way.fail(server.url)
        server.connection().wait_left()
    assert isinstance(error, expected), repr(error)
    assert words in error.message
    if isinstance(error, APIError):
        assert error.status in {200, 418, 502}
        assert error.body


CUT: dict[str, tuple[bytes, bytes, Expected]] = {
    "close-delimited": (head(**SSE), chunk("Hel"), IncompleteStreamError),
    "content-length": (head(**SSE, content_length=BIG), chunk("Hel"), ConnectionLostError),
    "chunked": (SSE_HEAD, http_chunks(chunk("Hel"), last=False), ConnectionLostError),
    "mid-chunk": (SSE_HEAD, http_chunks(chunk("Hel"), last=False) + b"ff\r\ndata: {", ConnectionLostError),
    "mid-event": (head(**SSE), chunk("Hel") + chunk("lo")[:-9], IncompleteStreamError),
}


@pytest.mark.parametrize("end", [CLOSE, RESET])
@pytest.mark.parametrize("framing", CUT)
def test_a_cut_stream_is_an_error_with_the_reply_so_far(way: Way, framing: str, end: Step) -> None:
    """A cut is told in every framing, and what had come is kept."""
    start, body, expected = CUT[framing]
    with Loopback([start, body, 0.02, end]) as server:
        error = way.fail(server.url)
    # aiohttp takes the reset of a body without a length for its end, so that one tells as the other.
    assert isinstance(error, (expected, ConnectionLostError) if end is RESET else expected), repr(error)
    assert error.partial is not None
    assert error.partial.content == "Hel"
    assert error.partial.finish_reason == ""


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (head(content_type="application/json"), IncompleteStreamError),
        (head(content_type="application/json", content_length=len(JSON)), ConnectionLostError),
        (head(content_type="application/json", transfer_encoding="chunked"), ConnectionLostError),
    ],
    ids=["close-delimited", "content-length", "chunked"],
)
def test_a_cut_body_is_an_error(way: Way, start: bytes, expected: Expected) -> None:
    """Half a JSON body is told in every framing."""
    body = http_chunks(HALF_JSON, last=False) if b"chunked" in start else HALF_JSON
    with Loopback([start, body, 0.02, CLOSE]) as server:
        assert isinstance(way.fail(server.url), expected)


def test_a_stream_without_its_end_mark_is_whole_after_the_finish_reason(way: Way) -> None:
    """A connection that breaks behind the finish reason costs nothing but a note."""
    with Loopback([SSE_HEAD, http_chunks(chunk("Hello."), chunk(finish="stop"), last=False), 0.02, RESET]) as server:
        reply = way.ask(server.url)
    assert reply.content == "Hello."
    assert "end_missing" in [problem.code for problem in reply.problems]


SILENT: dict[str, tuple[Answer, dict[str, float], str]] = {
    "before-head": ([HANG], {"first_token_timeout": 0.12}, "first_token"),
    "in-head": ([b"HTTP/1.1 200 OK\r\n", HANG], {"first_token_timeout": 0.12}, "first_token"),
    "after-head": ([SSE_HEAD, HANG], {"first_token_timeout": 0.12}, "first_token"),
    "mid-stream": ([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG], {"timeout": 0.12}, "idle"),
    "mid-body": ([head(content_length=len(JSON)), HALF_JSON, HANG], {"timeout": 0.12}, "idle"),
    "total-before-head": ([HANG], {"total_timeout": 0.12}, "total"),
    "total-in-stream": ([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG], {"total_timeout": 0.12}, "total"),
}


@pytest.mark.parametrize("name", SILENT)
def test_silence_ends_with_the_limit_that_ran_out(way: Way, name: str) -> None:
    """Each phase of waiting has its own limit, is named in the error, and ends the connection."""
    answer, limits, phase = SILENT[name]
    with Loopback(answer) as server:
        error = way.fail(server.url, **limits)
        for connection in server.connections:  # none, where connecting took longer than the limit
            connection.wait_left()
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == (phase, 0.12)
    assert "0.12 s" in error.message


def drip(start: bytes, drop: bytes) -> Iterator[Step]:
    """Return a start and then drops, 20 ms apart, without end."""
    yield start
    while True:
        yield 0.02
        yield drop


DRIPS = {
    "status": (b"HTTP/1.1 200 O", b"K"),
    "head": (b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"),
    "header": (b"HTTP/1.1 200 OK\r\nX-Drops: ", b"1"),
    "body": (head(content_length=BIG), b" "),
    "comments": (SSE_HEAD, http_chunks(b": ping\n\n", last=False)),
    "words": (SSE_HEAD, http_chunks(chunk("la "), last=False)),
    "chunk-size": (SSE_HEAD + b"5;", b"x"),
    "trailers": (SSE_HEAD + b"0\r\n", b"X-Drop: 1\r\n"),
}


@pytest.mark.parametrize("name", DRIPS)
def test_the_total_limit_ends_what_drips_for_ever(way: Way, name: str) -> None:
    """A server that is never silent for long, and never done, is bounded by `total_timeout`, wherever it drips."""
    with Loopback(lambda _: drip(*DRIPS[name])) as server:
        error = way.fail(server.url, total_timeout=0.15)
        for connection in server.connections:  # none, where connecting took longer than the limit
            connection.wait_left()
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("total", 0.15)


@pytest.mark.parametrize("name", ["status", "head", "header"])
def test_a_dripping_head_is_no_first_token(way: Way, name: str) -> None:
    """The wait for the first byte of the answer is one wait, however the head drips."""
    with Loopback(lambda _: drip(*DRIPS[name])) as server:
        error = way.fail(server.url, first_token_timeout=0.15)
    assert isinstance(error, RequestTimeoutError)
    assert error.phase == "first_token"


def test_words_that_keep_coming_are_no_silence(way: Way) -> None:
    """The limits of silence do not end an answer that goes on."""

    def slow(_: Request) -> Iterator[Step]:
        yield SSE_HEAD
        for _ in range(7):
            yield 0.3
            yield http_chunks(chunk("la "), last=False)
        yield http_chunks(chunk(finish="stop"))

    with Loopback(slow) as server:
        assert way.ask(server.url, timeout=2.0, first_token_timeout=2.0).content == " ".join(["la"] * 7)


@pytest.mark.parametrize("framing", [head(**SSE), head(**SSE, content_length=BIG), SSE_HEAD])
def test_an_endless_line_stops_at_its_limit(way: Way, framing: bytes) -> None:
    """A line of 100 MB fails at the limit that the error names; the rest of it is neither read nor kept."""
    piece = b"x" * (1 << 18)
    coded = http_chunks(piece, last=False) if framing is SSE_HEAD else piece
    first = b'data: {"choices":[{"delta":{"content":"'
    first = http_chunks(first, last=False) if framing is SSE_HEAD else first
    with Loopback([framing, first, *itertools.repeat(coded, 400), CLOSE]) as server:
        tracemalloc.start()
        try:
            error = way.fail(server.url)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        server.connection().wait_left()
        assert server.connection().sent < 32 << 20
    assert isinstance(error, MalformedStreamError)
    assert "8388608" in error.message
    assert most < 40 << 20


def test_a_promise_of_a_gigabyte_reserves_nothing(way: Way) -> None:
    """`Content-Length` is a claim: memory is taken for what came."""
    with Loopback([head(content_type="application/json", content_length=BIG), JSON, 0.02, CLOSE]) as server:
        tracemalloc.start()
        try:
            error = way.fail(server.url)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(error, ConnectionLostError)
    assert most < 8 << 20


def test_an_endless_refusal_is_read_up_to_a_limit(way: Way) -> None:
    """An error's body is for its message: a megabyte of it is enough."""
    with Loopback([head(500), *itertools.repeat(b"no! " * 65536, 400), CLOSE]) as server:
        error = way.fail(server.url)
        server.connection().wait_left()
        assert server.connection().sent < 32 << 20
    assert isinstance(error, ServerError)


@pytest.mark.parametrize(
    "answer",
    [
        [head(500, transfer_encoding="chunked") + b"xyz\r\n", CLOSE],
        text_answer("no gzip", 500, content_encoding="gzip"),
        [head(500, content_length=99) + b"cut", CLOSE],
    ],
    ids=["chunks", "gzip", "cut"],
)
def test_a_refusal_that_cannot_be_read_keeps_its_status(way: Way, answer: Answer) -> None:
    """The status says more than that the body is broken, and is what decides whether to ask again."""
    with Loopback(answer) as server:
        error = way.fail(server.url)
    assert isinstance(error, ServerError)
    assert error.status == 500


def test_nothing_listens(way: Way) -> None:
    """A wrong port is told with the address, and what to start."""
    url = f"http://127.0.0.1:{free_port()}"
    error = way.fail(url)
    assert isinstance(error, ServerUnreachableError)
    assert url in error.message
    assert "refused" in error.message
    assert "lms server start" in error.hint


@pytest.mark.parametrize(
    ("result", "expected", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ServerUnreachableError, "not known"),
        ([], ServerUnreachableError, "no address"),
        (UnicodeError("label too long"), ConfigurationError, "address is invalid"),
    ],
    ids=["unknown", "without an address", "no name"],
)
def test_a_name_that_is_no_host(
    way: Way, result: Any, expected: Expected, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that does not resolve is a server that cannot be reached; the look-up is played, so no network is asked."""

    def played(*_: object, **__: object) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(socket, "getaddrinfo", played)
    error = way.fail("http://nowhere.invalid:1234")
    assert isinstance(error, expected)
    assert words in error.message
    assert "nowhere.invalid" in error.message or expected is ConfigurationError


def test_a_full_queue_is_a_connect_timeout(way: Way) -> None:
    """A server that does not take the connection is told as such; the limit is `connect_timeout`."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        address = listener.getsockname()
        for _ in range(8):  # fill the queue of connections that wait to be accepted
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        error = way.fail(f"http://127.0.0.1:{address[1]}", connect_timeout=0.3)
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("connect", 0.3)
    assert "connect_timeout" in error.hint


def test_a_server_that_reads_nothing(way: Way) -> None:
    """A request that the server does not take ends with a limit, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        error = way.fail(url, text="x" * (24 << 20), first_token_timeout=0.25)
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("first_token", 0.25)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(way: Way, status: int) -> None:
    """The token and the prompt go to the server that was named, and to no other."""
    with Loopback(json_answer(completion())) as other:
        with Loopback(text_answer("", status, location=f"{other.url}/v1/chat/completions")) as server:
            error = way.fail(server.url, api_token="sk-secret")
        assert not other.connections
    assert isinstance(error, APIError)
    assert error.status == status
    assert other.url in error.hint
    assert "sk-secret" not in repr(error) + str(error)


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "text/html", "application/json"])
def test_the_content_type_does_not_matter(way: Way, kind: str) -> None:
    """What came is told by its bytes."""
    stream = events("Hel", "lo.")
    stream[0] = head(content_type=kind, transfer_encoding="chunked")
    with Loopback(stream) as server:
        assert way.ask(server.url).content == "Hello."


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "in pieces"])
def test_gzip_is_understood_though_identity_was_asked_for(way: Way, is_cut: bool) -> None:
    """A proxy that compresses all the same costs nothing."""
    packed = gzip.compress(b"".join([chunk("Hel"), chunk("lo."), chunk(finish="stop")]))
    pieces = [packed[at : at + 1] for at in range(len(packed))] if is_cut else [packed]
    start = head(**SSE, transfer_encoding="chunked", content_encoding="gzip")
    with Loopback([start, http_chunks(*pieces)]) as server:
        assert way.ask(server.url).content == "Hello."
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("is_error", [False, True], ids=["answer", "refusal"])
@pytest.mark.parametrize("coding", ["compress", "exi", "x-unknown", "gzip, x-unknown", "X-Unknown"])
def test_a_body_that_nobody_decoded_is_not_read(way: Way, coding: str, is_error: bool) -> None:
    """Of compressed bytes some may look like words: a refusal keeps its status, an answer is an error that names the coding."""
    body = b"".join([b"\x1bB\x01 data: ", chunk("Hel"), chunk(finish="stop")])
    answer = text_answer(body, 400 if is_error else 200, content_type="text/event-stream", content_encoding=coding)
    with Loopback(answer) as server:
        error = way.fail(server.url)
        server.connection().wait_left()
    if is_error:
        assert isinstance(error, InvalidRequestError)
    else:
        assert isinstance(error, MalformedStreamError)
        assert "x-unknown" in error.message or coding in error.message
    assert error.partial is None or not error.partial.content


@pytest.mark.parametrize("coding", ["identity", "", "gzip", "deflate"])
def test_a_coding_that_can_be_decoded_is(way: Way, coding: str) -> None:
    """Though none was asked for."""
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)
    with Loopback(text_answer(pack(JSON), content_type="application/json", content_encoding=coding)) as server:
        assert way.ask(server.url).content == "Hello."


INTERIM = {
    "100": head(100),
    "102": head(102),
    "103": head(103, link="</style.css>; rel=preload"),
    "199": head(199),
    "several": head(100) + head(102) * 3 + head(103, link="<a>"),
}


@pytest.mark.parametrize("name", INTERIM)
def test_an_interim_answer_is_not_the_answer(way: Way, name: str) -> None:
    """RFC 9110, 15.2: whatever 1xx comes first, the answer is what follows, at once or later."""
    late = [INTERIM[name], 0.05]
    with Loopback(
        lambda request: [*late, *hello(request)],
        lambda request: [INTERIM[name] + hello(request)[0], *hello(request)[1:]],
    ) as server:
        assert [way.ask(server.url).content for _ in range(2)] == ["Hello.", "Hello."]


@pytest.mark.parametrize("piece", [head(103), head(103, x_filler="y" * 1000)])
def test_interim_answers_without_end_end(way: Way, piece: bytes) -> None:
    """Their number and the time are limited."""
    with Loopback([*itertools.repeat(piece, 5000), CLOSE]) as server:
        error = way.fail(server.url, total_timeout=3.0)
    assert isinstance(error, TransportError | MalformedStreamError)


@pytest.mark.parametrize(
    "limits", [{"connect_timeout": 0.2}, {"total_timeout": 0.3}, {"first_token_timeout": 0.3}], ids=str
)
def test_a_look_up_that_hangs_ends_with_the_limit(
    way: Way, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's look-up cannot be given a limit: it is left alone, and nobody waits for it, not even at the loop's end."""
    release = threading.Event()

    def slow(*_: object, **__: object) -> None:
        release.wait(4 * PATIENCE)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        error = way.fail("http://slow.invalid:1234", **limits)
    finally:
        release.set()
    assert isinstance(error, RequestTimeoutError)
    assert error.seconds == next(iter(limits.values()))


def test_a_packed_flood_is_stopped(way: Way) -> None:
    """A small answer that unpacks to a very long line fails at the same limit."""
    packed = gzip.compress(b"data: " + b"x" * (100 << 20), compresslevel=1)
    with Loopback(text_answer(packed, content_encoding="gzip", content_type="text/event-stream")) as server:
        tracemalloc.start()
        try:
            error = way.fail(server.url)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(error, MalformedStreamError)
    assert most < 64 << 20


def test_a_bad_proxy_is_a_setting(way: Way) -> None:
    """A proxy of a kind that cannot be used is told before anything is sent."""
    with Loopback([HANG]) as server, pytest.raises(LMStudioError) as caught:
        way.ask(server.url, proxy="socks5://127.0.0.1:1")
    assert isinstance(caught.value, ConfigurationError)
    assert "proxy" in str(caught.value)
    assert not server.requests


def test_an_error_is_ready_for_a_log(way: Way) -> None:
    """Neither the text of an error nor its parts hold the token."""
    with Loopback(json_answer({"error": {"message": "no", "code": "invalid_api_key"}}, 401)) as server:
        error = way.fail(server.url, api_token="sk-secret")
    shown: dict[str, Any] = vars(error)
    assert "sk-secret" not in f"{error} {error!r} {shown}"
