"""The token is in no report of an error, also where that shows the local variables of every frame."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lmdeck
from asking import WAYS, Way, alm, lm
from lmdeck import LMStudioError
from loopback import (
    CLOSE,
    HANG,
    RESET,
    SSE_HEAD,
    Answer,
    Loopback,
    chunk,
    head,
    hello,
    http_chunks,
    json_answer,
    text_answer,
)
from ports import free_port

TOKEN = "sk-lm-S3cr3tS3cr3t"
HEADER = "the team's header"
BROKEN: dict[str, tuple[Answer, dict[str, float]]] = {
    "silent": ([HANG], {"first_token_timeout": 0.2}),
    "closed": ([CLOSE], {}),
    "reset": ([RESET], {}),
    "half a head": ([b"HTTP/1.1 200 OK\r\nContent-", CLOSE], {}),
    "no HTTP": ([b"\x00\x01\x02 garbage\r\n\r\n", CLOSE], {}),
    "a bad header": ([b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", CLOSE], {}),
    "a long head": ([b"HTTP/1.1 200 OK\r\n" + b"X-Filler: yes\r\n" * 100_000, CLOSE], {}),
    "both lengths": ([head(content_length=5, transfer_encoding="chunked") + b"xx", CLOSE], {}),
    "refused": (json_answer({"error": "no"}, 401), {}),
    "redirected": (text_answer("", 302, location="http://elsewhere.example/"), {}),
    "no gzip": (text_answer("plain", content_encoding="gzip"), {}),
    "cut": ([SSE_HEAD, http_chunks(chunk("Hel"), last=False), CLOSE], {}),
    "silent stream": ([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG], {"timeout": 0.2}),
}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LM_API_TOKEN", TOKEN)


def report(error: BaseException) -> str:
    """Write an error as a tool does that shows every frame's variables, and the errors behind it."""
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return text + "".join(f"{each!r} {each.__dict__!r}" for each in chain(error))


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", BROKEN)
def test_a_report_with_local_variables_has_no_token(way: Way, name: str) -> None:
    """Wherever the request fails; the frames are still there, and the program's still have their variables."""
    answer, limits = BROKEN[name]
    with Loopback(answer) as server:
        error = way.fail(server.url, headers={"X-Team": HEADER}, **limits)
        assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    text = report(error)
    assert TOKEN not in text
    assert "self = " in text
    assert all(HEADER not in repr(frame.locals) for frame in frames_of_lmdeck(error))


def sync(url: str) -> BaseException:
    with lm(url) as client, pytest.raises(LMStudioError) as caught:
        client.chat().user("the prompt").run()
    return caught.value


def asynchronous(url: str) -> BaseException:
    async def run() -> BaseException:
        async with alm(url) as client:
            with pytest.raises(LMStudioError) as caught:
                await client.chat().user("the prompt").run()
            return caught.value

    return asyncio.run(run())


@pytest.mark.parametrize("way", [sync, asynchronous], ids=["sync", "async"])
def test_nor_has_the_report_of_a_run(way: Callable[[str], BaseException]) -> None:
    with Loopback(json_answer({"error": "no"}, 400)) as server:
        assert all("the prompt" not in repr(frame.locals) for frame in frames_of_lmdeck(way(server.url)))


def frames_of_lmdeck(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames that hold the headers and bodies of requests."""
    folder = str(Path(lmdeck.__file__).parent)
    stacks = [traceback.TracebackException.from_exception(each, capture_locals=True).stack for each in chain(error)]
    frames = [frame for stack in stacks for frame in stack if frame.filename.startswith(folder)]
    assert frames
    return frames


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nor_where_nothing_listens_or_nothing_is_read(way: Way) -> None:
    """This covers failures while connecting and while a large request is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert TOKEN not in report(way.fail(url, text="x" * (8 << 20), first_token_timeout=0.3))
    url = f"http://127.0.0.1:{free_port()}"
    assert TOKEN not in report(way.fail(url))
    assert TOKEN not in report(way.fail(url, proxy=url))


def test_nor_where_a_task_is_cancelled() -> None:
    """A cancellation passes through the same frames."""

    async def main(url: str) -> BaseException:
        async with alm(url) as client:
            task = asyncio.create_task(client.chat().user("Hi").send())
            await asyncio.to_thread(server.wait_requests, 1)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                return error
        raise AssertionError

    with Loopback([HANG]) as server:
        assert TOKEN not in report(asyncio.run(main(server.url)))


def test_what_the_caller_was_handling_keeps_its_variables() -> None:
    """Only frames of the request are cleared."""

    def fails() -> None:
        mine = "kept"
        raise LookupError(mine)

    with Loopback([CLOSE], hello) as server, lm(server.url) as client:
        try:
            fails()
        except LookupError as caught:
            with contextlib.suppress(LMStudioError):
                client.chat().user("Hi").send()
            told = report(caught)
    assert "mine = 'kept'" in told


def test_the_report_of_this_test_shows_variables() -> None:
    """A report that shows none would prove nothing."""

    def fails(token: str, run: Callable[[], Any]) -> None:
        run()

    with pytest.raises(ZeroDivisionError) as caught:
        fails(TOKEN, lambda: 1 / 0)
    assert TOKEN in report(caught.value)
