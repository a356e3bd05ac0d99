"""Streamed responses from real servers, uvicorn, gunicorn and runserver, with views and chats that are sync and async."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from far_end import Site, answer, call, head_of, site

from lmdeck import AsyncLMStudio, ConfigurationError, LMStudio, Reply
from lmdeck.contrib.django import lm, stream_response
from lmdeck.contrib.django.testing import override_lmdeck
from loopback import SSE_HEAD, Loopback, chunk, http_chunks

VIEWS = ["sync_lm", "sync_alm", "async_lm", "async_alm"]


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn", "runserver"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(request.param, tmp_path_factory.mktemp("site")) as running:
        yield running


def data_lines(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def wait_for_end(running: Site) -> list[str]:
    deadline = time.monotonic() + 3
    while not (ends := running.ends()):
        assert time.monotonic() < deadline, "nobody was told of the end"
        time.sleep(0.01)
    return ends


@pytest.mark.parametrize("view", VIEWS)
def test_tokens_arrive_as_they_are_written(running: Site, view: str) -> None:
    with running.get(f"/{view}/?q=slow", **{"Accept-Encoding": "gzip"}) as file:
        head = head_of(file)
        assert head["status"] == "200"
        assert head["content-type"] == "text/event-stream"
        assert head["content-encoding"] == "identity"
        assert head["x-accel-buffering"] == "no"
        assert "no-transform" in head["cache-control"]
        moments = [(time.monotonic(), one) for one in data_lines(file)]
    contents = [(at, one["text"]) for at, one in moments if one["type"] == "content"]
    assert [text for _, text in contents] == ["one ", "two"]
    assert contents[1][0] - contents[0][0] > 0.15
    assert moments[-1][1]["type"] == "done"
    assert moments[-1][1]["finish_reason"] == "stop"
    assert wait_for_end(running) == ["stop one two"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("question", ["endless", "silent"])
def test_the_model_stops_when_the_browser_leaves(running: Site, view: str, question: str) -> None:
    before = len(running.lm_studio.requests)
    with running.get(f"/{view}/?q={question}") as file:
        head_of(file)
        running.lm_studio.wait_requests(before + 1)
        if question == "endless":
            assert next(data_lines(file))["text"] == "la "
        connection = running.lm_studio.connection(running.lm_studio.requests[-1].connection)
        assert connection.left_at is None
    left = time.monotonic()
    connection.wait_left(1.0)
    assert (connection.left_at or 0) - left < 1.0
    (end,) = wait_for_end(running)
    assert end.startswith("cut")
    assert ("la" in end) == (question == "endless")


def test_tools_run(running: Site) -> None:
    with running.get("/sync_lm/?q=tool") as file:
        told = list(data_lines(file))
    kinds = [one["type"] for one in told]
    assert [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]] == [
        "call", "running", "result", "round", "content", "done",
    ]  # fmt: skip
    assert "".join(one["arguments"] for one in told if one["type"] == "call") == '{"city": "Paris"}'
    (result,) = [one for one in told if one["type"] == "result"]
    assert json.loads(result["content"]) == {"city": "Paris", "temperature": 21}
    assert result["id"] == next(one["id"] for one in told if one["type"] == "call")
    wait_for_end(running)


def test_a_failed_answer_ends_with_its_error(running: Site) -> None:
    with running.get("/async_alm/?q=cut") as file:
        told = list(data_lines(file))
    assert told[0] == {"type": "content", "text": "half"}
    assert told[-1]["type"] == "error"
    assert told[-1]["hint"]
    assert wait_for_end(running) == ["cut half"]


def test_silence_is_filled_where_a_server_must_write_to_notice(running: Site) -> None:
    with running.get("/sync_lm/?q=late") as file:
        lines = list(file)
    assert any(line.startswith(b":") for line in lines) == (running.kind != "uvicorn")
    assert any(b"late" in line for line in lines)
    wait_for_end(running)


def test_the_servers_have_nothing_to_complain_of(running: Site) -> None:
    log = running.log.read_text(encoding="utf-8")
    assert "Traceback" not in log, log
    assert "never awaited" not in log, log
    assert "Unclosed" not in log, log


def pieces_of(response: Any) -> list[dict[str, Any]]:
    """Read a response as an ASGI server does."""

    async def read() -> bytes:
        return b"".join([piece async for piece in response])

    return list(data_lines(asyncio.run(read()).splitlines()))


def test_a_client_of_ones_own_is_asked_where_it_is_async() -> None:
    with Loopback(answer) as server:
        chat = AsyncLMStudio(base_url=server.url, model="m").chat().user("Hi")
        assert [one["type"] for one in pieces_of(stream_response(chat))] == ["content", "content", "done"]
        with pytest.raises(ConfigurationError, match="sync client of your own"):
            stream_response(LMStudio(base_url=server.url).chat().user("Hi"))


def test_a_wrong_call_is_told_and_kept() -> None:
    ends: list[Reply] = []
    with Loopback(call("get_weather", '{"town": 3}'), answer) as server, override_lmdeck(BASE_URL=server.url):
        chat = lm.chat().user("Hi").with_tools(["get_weather"])
        told = pieces_of(stream_response(chat, on_end=ends.append))
    (result,) = [one for one in told if one["type"] == "result"]
    assert result["failed"]
    assert "do not fit" in result["content"]
    assert [message.role for message in ends[0].messages] == ["assistant", "tool", "assistant"]


def test_a_run_that_was_cut_in_its_second_round_keeps_the_first() -> None:
    ends: list[Reply] = []
    cut = [SSE_HEAD, http_chunks(chunk("It is 2"))]
    with Loopback(call("get_weather", '{"city": "Paris"}'), cut) as server, override_lmdeck(BASE_URL=server.url):
        told = pieces_of(stream_response(lm.chat().user("Hi").with_tools(["get_weather"]), on_end=ends.append))
    assert told[-1]["type"] == "error"
    (reply,) = ends
    assert reply.finish_reason == ""
    assert [(message.role, message.content) for message in reply.messages][::2] == [
        ("assistant", ""),
        ("assistant", "It is 2"),
    ]


def test_a_fault_of_the_sites_own_is_told_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    def approve(_: object) -> bool:
        raise RuntimeError("a secret of the site")

    with Loopback(call("get_weather", '{"city": "Paris"}')) as server, override_lmdeck(BASE_URL=server.url):
        told = pieces_of(stream_response(lm.chat().user("Hi").with_tools(["get_weather"]), approve=approve))
    assert told[-1] == {"type": "error", "message": "The answer failed.", "hint": "The log of the site says why."}
    assert "a secret of the site" in caplog.text
