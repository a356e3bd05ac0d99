"""How an answer ends: whole, stopped, cut or failed, as it is stored, shown and sent back; and what a visitor is told."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from flask import Flask
from test_web_trust import JSON, KINDS, call, serving, serving_flask

from asking import last_asked
from lmdeck import Reply
from lmdeck.contrib.fastapi import LM, lifespan
from lmdeck.contrib.fastapi import stream_response as fastapi_response
from lmdeck.contrib.flask import LMDeck
from lmdeck.contrib.flask import stream_response as flask_response
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from lmdeck.web.conversations import Conversations
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "postgresql://admin:hunter2@db.internal/app"


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False, cuts=False) as fake:
        yield fake


def events(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(block[6:]) for block in body.decode().split("\n\n") if block.startswith("data: {")]


def messages(url: str, key: str, count: int) -> list[dict[str, Any]]:
    """Read a conversation again, as a page does after a reload, once it has so many messages."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shown: list[dict[str, Any]] = json.loads(call(url, "GET", f"/conversations/{key}/")[2])["messages"]
        if len(shown) == count:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)


def ask_and_leave(url: str, text: str) -> str:
    with closing(http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)) as connection:
        connection.request("POST", "/ask", json.dumps({"text": text}), JSON)
        answer = connection.getresponse()
        while b'"content"' not in answer.readline():
            continue
        answer.close()
        return str(answer.headers["X-Conversation"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_stored_as_it_ended_and_not_sent_back_as_a_whole_turn(
    kind: str, fake: FakeLMStudio, tmp_path: Path
) -> None:
    fake.when(lambda request: request.last_user == "stop").reply("la " * 20_000, tokens_per_second=60)
    fake.when(lambda request: request.last_user == "cut").fail("cut", after_chunks=4)
    fake.when(lambda request: request.last_user == "fail").error(400, "no such thing")
    fake.when(lambda request: request.last_user == "long").reply("very long", finish_reason="length")
    with serving(kind, fake, auth=None, conversations=tmp_path / "c.sqlite3") as url:
        for word, ended in (
            ("stop", "stopped"),
            ("cut", "cut"),
            ("fail", "failed"),
            ("long", "length"),
            ("well", None),
        ):
            if word == "stop":
                key = ask_and_leave(url, word)
            else:
                _, headers, body = call(url, "POST", "/ask", {"text": word})
                key = headers["X-Conversation"]
                assert events(body)[-1]["type"] == ("error" if ended in {"cut", "failed"} else "done")
            asked, answer = messages(url, key, 2)
            assert (asked["role"], answer["role"], answer.get("ended")) == ("user", "assistant", ended)
            assert bool(answer["content"]) == (word != "fail")
            call(url, "POST", "/ask", {"text": "and now?", "conversation": key})
            sent = last_asked(fake).messages
            assert [message["role"] for message in sent] == ["user", *(["assistant"] if word != "fail" else []), "user"]
            if ended in {"stopped", "cut"}:
                assert sent[1]["content"].startswith(answer["content"])
                assert sent[1]["content"].endswith("[This answer was interrupted here.]")
            elif word != "fail":
                assert sent[1]["content"] == answer["content"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_with_its_own_history_marks_interrupted_answers(kind: str, fake: FakeLMStudio) -> None:
    before = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "half", "ended": "stopped"}]
    with serving(kind, fake, auth=None) as url:
        assert call(url, "POST", "/ask", {"text": "b", "messages": before})[0] == 200
    assert last_asked(fake).messages[1]["content"] == "half\n\n[This answer was interrupted here.]"


def streaming_app(
    kind: str, fake: FakeLMStudio, on_end: Callable[[Reply], object], *, debug: bool, encoding: str
) -> Any:
    if kind == "fastapi":
        app = FastAPI(lifespan=lifespan(base_url=fake.base_url), debug=debug)

        @app.get("/say")
        async def say(q: str, lm: LM) -> object:
            return fastapi_response(lm.chat().user(q), on_end=on_end, encoding=encoding)

        return app
    flask = Flask(__name__)
    flask.debug = debug
    flask.config["LMDECK"] = {"BASE_URL": fake.base_url}
    lmdeck = LMDeck(flask)

    @flask.get("/say")
    def say_it() -> object:
        from flask import request

        return flask_response(lmdeck.client.chat().user(request.args["q"]), on_end=on_end, encoding=encoding)

    return flask


@contextmanager
def streaming(
    kind: str,
    fake: FakeLMStudio,
    on_end: Callable[[Reply], object],
    *,
    debug: bool = False,
    encoding: str = "lmdeck",
) -> Iterator[str]:
    app = streaming_app(kind, fake, on_end, debug=debug, encoding=encoding)
    if kind == "fastapi":
        with BackgroundServer(app, listen(), lifespan=True) as server:
            yield server.base_url
        return
    with serving_flask(app) as url:
        yield url


def failing(reply: Reply) -> None:
    raise RuntimeError(f"cannot reach {SECRET}")


async def failing_async(reply: Reply) -> None:
    await asyncio.sleep(0)
    failing(reply)


@pytest.mark.parametrize(("kind", "on_end"), [("fastapi", failing), ("fastapi", failing_async), ("flask", failing)])
@pytest.mark.parametrize("encoding", ["lmdeck", "vercel", "ag-ui"])
def test_a_failing_on_end_is_an_error_event_and_the_answer_was_shown(
    kind: str, on_end: Callable[[Reply], object], encoding: str, fake: FakeLMStudio, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), streaming(kind, fake, on_end, encoding=encoding) as url:
        status, headers, body = call(url, "GET", "/say?q=Hi")
    assert status == 200
    assert "You said: Hi" in "".join(str(each.get("text", each.get("delta", ""))) for each in events(body))
    (error,) = [each for each in events(body) if each["type"].lower() in {"error", "run_error"}]
    said = json.dumps(error)
    assert "could not be saved" in said
    assert SECRET not in body.decode()
    number = next(word for word in said.replace('"', " ").replace(".", " ").split() if word.startswith("req_"))
    assert number in caplog.text
    assert "RuntimeError" in caplog.text
    assert headers["Content-Type"].startswith("text/event-stream")


@pytest.mark.parametrize("kind", KINDS)
def test_on_end_is_called_once_before_the_last_event(kind: str, fake: FakeLMStudio) -> None:
    told: list[Reply] = []
    with streaming(kind, fake, told.append) as url:
        body = call(url, "GET", "/say?q=Hi")[2]
        assert events(body)[-1]["type"] == "done"
    assert [(reply.content, reply.finish_reason) for reply in told] == [("You said: Hi", "stop")]


@pytest.mark.parametrize("kind", KINDS)
def test_visitors_get_a_neutral_sentence_and_a_number_developers_the_error(
    kind: str, fake: FakeLMStudio, caplog: pytest.LogCaptureFixture
) -> None:
    fake.when(lambda _: True).error(400, f"The path /home/ann/models is bad: {SECRET}")
    with caplog.at_level(logging.WARNING), streaming(kind, fake, lambda _: None) as url:
        (error,) = events(call(url, "GET", "/say?q=Hi")[2])
    assert error["type"] == "error"
    assert "hunter2" not in json.dumps(error)
    assert "/home/ann" not in json.dumps(error)
    assert error["request_id"] in error["hint"]
    assert error["request_id"] in caplog.text
    assert "/home/ann/models" in caplog.text
    with streaming(kind, fake, lambda _: None, debug=True) as url:
        (error,) = events(call(url, "GET", "/say?q=Hi")[2])
    assert "/home/ann/models" in error["message"]


def test_what_any_answer_holds_is_kept_in_the_file(tmp_path: Path) -> None:
    import math

    from lmdeck import ToolCall
    from lmdeck.messages import Round, ToolResult
    from lmdeck.web.requests import PageQuestion

    store = Conversations(tmp_path / "c.sqlite3")
    asked = store.ask(PageQuestion(text="a"), "me")
    assert asked is not None
    key = asked[0]
    call_ = ToolCall(id="x\x00" * 500, name="\ud83d" * 500, arguments={"a": math.inf, "b": 10**30, "c": "\ud83d\x00"})
    one = Round(
        reply=Reply(content="\x00\ud83d", tool_calls=[call_], finish_reason="tool_calls"),
        results=[ToolResult(call=call_, content="\udc00")],
    )
    store.add_reply(
        key,
        Reply(
            content="end", finish_reason="stop", rounds=[one, Round(reply=Reply(content="end", finish_reason="stop"))]
        ),
    )
    kept = store.messages(key, "me")
    assert kept is not None
    assert [message.content for message in kept] == ["a", "\ufffd\ufffd", "end"]
    assert kept[1].calls[0].arguments == {"a": "inf", "b": hex(10**30), "c": "\ufffd\ufffd"}
    again = store.ask(PageQuestion(text="b", conversation=key), "me")
    assert again is not None
    assert json.dumps([message.to_dict() for message in again[1]])


ENDED_PROCESS = """
import sys
from lmdeck import AsyncLMStudio
from lmdeck.web.background_loop import wait

client = AsyncLMStudio(base_url=sys.argv[1])
stream = client.chat().user("Hi").stream()

async def first():
    return await anext(aiter(stream))

LAST
"""


@pytest.mark.parametrize("last", ['wait(client.chat().user("Hi").send())', "wait(first())"], ids=["idle", "open"])
def test_the_end_of_the_process_closes_what_is_open_on_the_background_loop(last: str, fake: FakeLMStudio) -> None:
    """Otherwise aiohttp writes a warning for each connection whenever a Flask server is stopped."""
    command = [sys.executable, "-c", ENDED_PROCESS.replace("LAST", last), fake.base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
