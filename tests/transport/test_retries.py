"""Trying again over real sockets: where it can help, before the first word, and never after."""

from __future__ import annotations

import threading
import time

import pytest

from asking import SETTINGS, Way
from lmdeck import (
    ConnectionLostError,
    LMStudioError,
    ModelCrashedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
)
from loopback import (
    CLOSE,
    HANG,
    RESET,
    SSE_HEAD,
    Answer,
    Loopback,
    chunk,
    event,
    hello,
    http_chunks,
    json_answer,
    text_answer,
)

CRASHED = {"error": "The model has crashed without additional information. (Exit code: 18446744072635812000)"}
CHANNEL_ERROR = b"event: error\n" + event({"error": {"message": "Channel Error"}})
PASSING: dict[str, Answer] = {
    "503": json_answer({"error": "busy"}, 503),
    "502-html": text_answer("<html><body>Bad gateway</body></html>", 502, content_type="text/html"),
    "429": json_answer({"error": "slow down"}, 429, retry_after=0),
    "crashed": json_answer(CRASHED, 400),
    "crashed-200": json_answer(CRASHED),
    "channel-error": [SSE_HEAD, http_chunks(CHANNEL_ERROR)],
    "role-then-error": [SSE_HEAD, http_chunks(chunk(""), CHANNEL_ERROR)],
    "closed": [CLOSE],
    "reset": [RESET],
    "closed-after-head": [SSE_HEAD, CLOSE],
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(way: Way, name: str) -> None:
    """Two failures and then an answer are an answer."""
    with Loopback(PASSING[name], PASSING[name], hello) as server:
        assert way.ask(server.url, retry_attempts=3).content == "Hello."
        assert len(server.requests) == 3
        assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("503", ServerError), ("429", RateLimitError), ("crashed", ModelCrashedError), ("closed", ConnectionLostError)],
)
@pytest.mark.parametrize("attempts", [1, 3])
def test_the_last_failure_is_raised(way: Way, name: str, expected: type[LMStudioError], attempts: int) -> None:
    """The error has the number of attempts."""
    with Loopback(PASSING[name]) as server:
        error = way.fail(server.url, retry_attempts=attempts)
        assert len(server.requests) == attempts
    assert type(error) is expected


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
def test_what_stays_wrong_is_asked_once(way: Way, status: int) -> None:
    """A request that the server refuses is not sent again."""
    with Loopback(json_answer({"error": "no"}, status), hello) as server:
        with pytest.raises(LMStudioError) as caught:
            way.ask(server.url, retry_attempts=3)
        assert caught.value.attempts == 1
        assert len(server.requests) == 1


def test_a_silent_server_is_asked_once(way: Way) -> None:
    """Waiting for a slow model twice helps nobody."""
    with Loopback([HANG]) as server:
        with pytest.raises(RequestTimeoutError) as caught:
            way.ask(server.url, retry_attempts=3, first_token_timeout=0.5)
        assert caught.value.attempts == 1
        assert len(server.requests) <= 1  # on a busy machine the limit may pass before the request is read


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ([0.05, http_chunks(CHANNEL_ERROR)], ModelCrashedError),
        ([0.05, http_chunks(event({"error": {"message": "busy", "type": "server_error"}}))], LMStudioError),
        ([0.02, RESET], ConnectionLostError),
    ],
    ids=["error-event", "error-object", "reset"],
)
def test_nothing_is_tried_again_after_the_first_word(is_async: bool, end: list[object], expected: type) -> None:
    """What was handed on cannot be taken back, so the error carries it."""
    with Loopback([SSE_HEAD, http_chunks(chunk("Hel"), last=False), *end], hello) as server:
        with pytest.raises(LMStudioError) as caught:
            Way(is_async, is_streamed=True).ask(server.url, retry_attempts=3)
        assert len(server.requests) == 1
    error = caught.value
    assert isinstance(error, expected)
    assert error.attempts == 1
    assert error.partial is not None
    assert error.partial.content == "Hel"


def test_a_server_that_starts_late_is_found(way: Way) -> None:
    """A refused connection is tried again, so a server that is just starting is no error."""
    with Loopback(hello) as server:
        port = server.port
    started = []
    timer = threading.Timer(0.15, lambda: started.append(Loopback(hello, port=port)))
    timer.start()
    try:
        url = f"http://127.0.0.1:{port}"
        assert way.ask(url, **{**SETTINGS, "retry_attempts": 10, "retry_delay": 0.05}).content == "Hello."
    finally:
        timer.join()
        started[0].close()


def test_a_server_that_never_starts_is_asked_as_often_as_allowed(way: Way) -> None:
    """The attempts at connecting are counted, too."""
    with Loopback(hello) as server:
        url = server.url
    assert isinstance(way.fail(url, retry_attempts=3), ServerUnreachableError)


def test_retry_after_is_waited_for(way: Way) -> None:
    """The server's own word on when to come back is kept."""
    with Loopback(json_answer({"error": "slow down"}, 429, retry_after_ms=250), hello) as server:
        started = time.monotonic()
        assert way.ask(server.url, retry_attempts=2).content == "Hello."
        assert time.monotonic() - started >= 0.25


def test_a_long_retry_after_is_reported_at_once(way: Way) -> None:
    """Nobody is made to wait an hour without knowing it."""
    with Loopback(json_answer({"error": "slow down"}, 429, retry_after=3600), hello) as server:
        with pytest.raises(RateLimitError) as caught:
            way.ask(server.url, retry_attempts=3)
        assert len(server.requests) == 1
    assert caught.value.retry_after == 3600
