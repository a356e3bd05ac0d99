"""Streamed responses from real servers, uvicorn, gunicorn and runserver, with views and chats that are sync and async."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings
from far_end import HALF, SLOW, Site, far_end, head_of, project, site

from lmdeck import ConfigurationError, Reply
from lmdeck.contrib.django import lm, stream_response
from lmdeck.testing import Answer
from lmdeck.testing.scripted_answers import PlannedCall
from loopback import PATIENCE

VIEWS = ["sync_lm", "sync_alm", "async_lm", "async_alm"]


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn", "gevent", "runserver"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(request.param, tmp_path_factory.mktemp("site")) as running:
        with running.get("/sync_lm/?q=first") as file:  # what is imported late is there afterwards
            file.read()
        wait_for_end(running)
        yield running


def data_lines(file: Any) -> Iterator[dict[str, Any]]:
    for line in file:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def wait_for_end(running: Site) -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while not (ends := running.ends()):
        assert time.monotonic() < deadline, "nobody was told of the end"
        time.sleep(0.01)
    return ends


@pytest.mark.parametrize("view", VIEWS)
def test_no_part_of_the_server_buffers_tokens(running: Site, view: str) -> None:
    with running.get(f"/{view}/?q=slow", **{"Accept-Encoding": "gzip"}) as file:
        head = head_of(file)
        assert head["status"] == "200"
        assert head["content-type"] == "text/event-stream"
        assert head["content-encoding"] == "identity"
        assert head["x-accel-buffering"] == "no"
        assert "no-transform" in head["cache-control"]
        told = list(data_lines(file))
    assert "".join(one["text"] for one in told if one["type"] == "content") == SLOW
    assert told[-1]["type"] == "done"
    assert told[-1]["finish_reason"] == "stop"
    assert wait_for_end(running) == [f"stop {SLOW[:20]}"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("question", ["endless", "silent"])
def test_the_model_stops_when_the_browser_leaves(running: Site, view: str, question: str) -> None:
    with running.get(f"/{view}/?q={question}", **{"Accept-Encoding": "gzip"}) as file:
        head_of(file)
        running.lm_studio.wait_until_busy(PATIENCE)
        if question == "endless":  # its first words come before its last ones are written
            assert "la la la".startswith(next(data_lines(file))["text"])
        assert running.lm_studio.in_progress == 1
    running.lm_studio.wait_until_idle(PATIENCE)
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
    said = "".join(one["text"] for one in told[:-1])
    assert {one["type"] for one in told[:-1]} == {"content"}
    assert HALF.startswith(said)
    assert told[-1]["type"] == "error"
    assert told[-1]["hint"]
    assert wait_for_end(running) == [f"cut {said[:20].strip()}"]


def test_comments_are_sent_where_a_server_must_write_to_notice_a_disconnect(running: Site) -> None:
    with running.get("/sync_lm/?q=late") as file:
        lines = list(file)
    assert any(line.startswith(b":") for line in lines) == (running.kind != "uvicorn")
    assert "".join(one["text"] for one in data_lines(lines) if one["type"] == "content") == "late"
    wait_for_end(running)


def test_the_servers_log_no_errors(running: Site) -> None:
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
    with far_end() as fake:
        told = pieces_of(stream_response(fake.async_client(model="m").chat().user("slow")))
        *contents, done = [one["type"] for one in told]
        assert set(contents) == {"content"}
        assert done == "done"
        with pytest.raises(ConfigurationError, match="sync client other than"):
            stream_response(fake.client().chat().user("Hi"))


@pytest.mark.parametrize(("encoding", "sign"), [("vercel", '"type":"text-delta"'), ("ag-ui", '"TEXT_MESSAGE_CONTENT"')])
def test_other_pages_are_written_for_as_well(encoding: str, sign: str) -> None:
    with project():
        response = stream_response(lm.chat().user("Hi"), encoding=encoding)
        assert sign in b"".join(response).decode()
        response.close()
        assert ("x-vercel-ai-ui-message-stream" in response.headers) == (encoding == "vercel")
    with pytest.raises(ConfigurationError, match="no encoding"):
        stream_response(lm.chat().user("Hi"), encoding="morse")


def test_an_invalid_call_is_reported_and_stored() -> None:
    ends: list[Reply] = []
    wrong = Answer(calls=(PlannedCall(name="get_weather", arguments='{"town": 3}'),))
    with project() as fake:
        fake.when(lambda request: not request.tool_uses).answer(wrong)
        chat = lm.chat().user("Hi").with_tools(["get_weather"])
        told = pieces_of(stream_response(chat, on_end=ends.append))
    (result,) = [one for one in told if one["type"] == "result"]
    assert result["failed"]
    assert "do not match" in result["content"]
    assert [message.role for message in ends[0].messages] == ["assistant", "tool", "assistant"]


def test_a_run_that_was_cut_in_its_second_round_keeps_the_first() -> None:
    ends: list[Reply] = []
    with project() as fake:
        fake.when(lambda request: request.tool_uses).fail("cut", reply="It is 2" * 9, after_chunks=3)
        told = pieces_of(stream_response(lm.chat().user("tool").with_tools(["get_weather"]), on_end=ends.append))
    assert told[-1]["type"] == "error"
    (reply,) = ends
    said = "".join(one["text"] for one in told if one["type"] == "content")
    assert reply.finish_reason == ""
    assert said
    assert [(message.role, message.content) for message in reply.messages][::2] == [
        ("assistant", ""),
        ("assistant", said.strip()),
    ]


def test_a_run_that_was_cut_while_the_model_thought_keeps_the_thought_with_its_round() -> None:
    ends: list[Reply] = []
    thought = Answer(reasoning="It is hot, or cold, or neither of them.")
    with project() as fake:
        fake.when(lambda request: request.tool_uses).fail("cut", reply=thought, after_chunks=4)
        pieces_of(stream_response(lm.chat().user("tool").with_tools(["get_weather"]), on_end=ends.append))
    first, second = ends[0].rounds
    assert [result.call.name for result in first.results] == ["get_weather"]
    assert first.reply.reasoning == ""
    assert second.reply.reasoning
    assert thought.reasoning.startswith(second.reply.reasoning)
    assert [message.role for message in ends[0].messages] == ["assistant", "tool"]


def test_an_error_of_the_site_is_reported_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    def approve(_: object) -> bool:
        raise RuntimeError("a secret of the site")

    with project():
        told = pieces_of(stream_response(lm.chat().user("tool").with_tools(["get_weather"]), approve=approve))
    assert told[-1]["type"] == "error"
    assert told[-1]["message"] == "The answer failed."
    assert told[-1]["request_id"] in told[-1]["hint"]
    assert "a secret of the site" in caplog.text


async def fail_later(_: Reply) -> None:
    await asyncio.sleep(0)
    raise RuntimeError("a secret of the site")


def fail_at_once(_: Reply) -> None:
    raise RuntimeError("a secret of the site")


@pytest.mark.parametrize("on_end", [fail_at_once, fail_later])
def test_a_failing_on_end_is_an_event(on_end: Any, caplog: pytest.LogCaptureFixture) -> None:
    with project():
        told = pieces_of(stream_response(lm.chat().user("Hi"), on_end=on_end))
    assert "".join(one["text"] for one in told if one["type"] == "content") == "Hello."
    assert told[-1]["type"] == "error"
    assert "could not be saved" in told[-1]["message"]
    assert "secret" not in json.dumps(told)
    assert told[-1]["request_id"] in caplog.text
    with project(), override_settings(DEBUG=True):
        told = pieces_of(stream_response(lm.chat().user("Hi"), on_end=on_end))
    assert "a secret of the site" in told[-1]["message"]
