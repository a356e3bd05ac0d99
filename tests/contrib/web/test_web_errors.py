"""What a visitor gets where a view raises an `LMStudioError`, and where the file of conversations is not usable."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from fastapi import FastAPI
from flask import Flask
from test_web_trust import KINDS, call, serving, serving_flask

from lmdeck import LMStudioError, Reply
from lmdeck.contrib import fastapi as for_fastapi
from lmdeck.contrib import flask as for_flask
from lmdeck.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    ContextLengthError,
    EmptyReplyError,
    FileWriteError,
    IncompleteStreamError,
    InvalidRequestError,
    ModelNotFoundError,
    NoModelLoadedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
    StructuredOutputError,
    UnknownToolError,
)
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from lmdeck.web.conversations import Conversations
from lmdeck.web.error_reports import status_of
from lmdeck.web.requests import PageQuestion
from lmdeck.web.store_errors import ConversationsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False, cuts=False) as fake:
        yield fake


class Gone:
    """An LM Studio that does not run."""

    base_url = "http://127.0.0.1:9"


def app_of(kind: str, fake: Any, *, debug: bool) -> Any:
    if kind == "fastapi":
        app = FastAPI(lifespan=for_fastapi.lifespan(base_url=fake.base_url, retry_attempts=1), debug=debug)
        app.add_exception_handler(LMStudioError, for_fastapi.error_handler)

        @app.get("/ask")
        async def ask(lm: for_fastapi.LM) -> str:
            return (await lm.chat().user("Hi").send()).content

        return app
    flask = Flask(__name__)
    flask.debug = debug
    flask.config["LMDECK"] = {"BASE_URL": fake.base_url, "RETRY_ATTEMPTS": 1}
    lmdeck = for_flask.LMDeck(flask)
    flask.register_error_handler(LMStudioError, for_flask.error_handler)
    flask.get("/ask")(lambda: lmdeck.client.chat().user("Hi").send().content)
    return flask


@contextmanager
def site(kind: str, fake: Any, *, debug: bool = False) -> Iterator[str]:
    app = app_of(kind, fake, debug=debug)
    if kind == "fastapi":
        with BackgroundServer(app, listen(), lifespan=True) as server:
            yield server.base_url
        return
    with serving_flask(app) as url:
        yield url


@pytest.mark.parametrize("kind", KINDS)
def test_visitors_get_a_neutral_sentence_and_a_number(
    kind: str, fake: FakeLMStudio, caplog: pytest.LogCaptureFixture
) -> None:
    fake.when(lambda _: True).error(400, "The path /home/ann/models is bad.")
    with caplog.at_level(logging.WARNING), site(kind, fake) as url:
        status, headers, body = call(url, "GET", "/ask")
        _, page_headers, page = call(url, "GET", "/ask", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    error = json.loads(body)["error"]
    assert status == 500
    assert set(error) == {"message", "hint", "request_id"}
    assert error["request_id"] in error["hint"]
    assert error["request_id"] in caplog.text
    assert headers["Cache-Control"] == "no-store"
    assert page_headers["Content-Type"].startswith("text/html")
    assert "<h1>" in page.decode()
    assert "/home/ann" not in page.decode() + body.decode()
    assert "/home/ann/models" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_developers_get_the_error_and_its_hint(kind: str, fake: FakeLMStudio) -> None:
    fake.when(lambda _: True).error(400, "The path <b>/home/ann</b> is bad.")
    with site(kind, fake, debug=True) as url:
        error = json.loads(call(url, "GET", "/ask")[2])["error"]
        page = call(url, "GET", "/ask", Accept="text/html")[2].decode()
    assert error["type"] == "InvalidRequestError"
    assert "/home/ann" in error["message"]
    assert error["hint"]
    assert "&lt;b&gt;/home/ann" in page
    assert "<b>" not in page


def test_each_error_has_a_status_that_does_not_blame_the_visitor() -> None:
    expected = {
        413: [ContextLengthError("x", status=400)],
        500: [InvalidRequestError("x", status=400), ConfigurationError("x"), UnknownToolError("x")],
        502: [
            AuthenticationError("x", status=401), ServerError("x", status=500), ConnectionLostError("x"),
            IncompleteStreamError("x"), EmptyReplyError("x"), StructuredOutputError("x"),
        ],
        503: [
            ServerUnreachableError("x"), NoModelLoadedError("x"), ModelNotFoundError("x"),
            RateLimitError("x", status=429), ConversationsError("x"),
        ],
        504: [RequestTimeoutError("x", phase="idle", seconds=1)],
    }  # fmt: skip
    for status, errors in expected.items():
        for error in errors:
            assert (type(error), status_of(error)) == (type(error), status)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_gone_is_503_and_one_that_asks_to_wait_says_how_long(kind: str, fake: FakeLMStudio) -> None:
    fake.when(lambda _: True).fail("rate_limit", retry_after=7)
    with site(kind, fake) as url:
        status, headers, _ = call(url, "GET", "/ask")
        assert (status, headers["Retry-After"]) == (503, "7")
    with site(kind, Gone()) as url:
        assert call(url, "GET", "/ask")[0] == 503


def test_a_file_that_is_locked_full_damaged_or_of_another_kind_is_a_typed_error_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "chats.sqlite3"
    store = Conversations(path)
    asked = store.ask(PageQuestion(text="Hello"), "ada")
    assert asked is not None
    with sqlite3.connect(path, isolation_level=None) as other:
        store.timeout = 0.05
        other.execute("BEGIN EXCLUSIVE")
        for use in (lambda: store.newest("ada"), lambda: store.add_reply(asked[0], Reply(content="Hi"))):
            with pytest.raises(ConversationsError, match="locked") as caught:
                use()
            assert "try again" in caught.value.hint
        other.execute("ROLLBACK")
    other.close()
    store.add_reply(asked[0], Reply(content="Hi", finish_reason="stop"))
    with sqlite3.connect(path) as full:
        full.execute("UPDATE message SET body = '{' WHERE position = 1")
    full.close()
    with pytest.raises(ConversationsError, match="not available") as caught:
        store.messages(asked[0], "ada")
    assert "version" in caught.value.hint
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(ConversationsError) as caught:
        Conversations(tmp_path / "text")
    assert "new file" in caught.value.hint
    with pytest.raises(FileWriteError):
        Conversations(tmp_path / "nowhere" / "chats.sqlite3")


@pytest.mark.parametrize("kind", KINDS)
def test_a_locked_file_is_503_for_the_page(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    store = Conversations(tmp_path / "chats.sqlite3")
    store.timeout = 0.05
    with serving(kind, fake, auth=None, conversations=store) as url:
        with sqlite3.connect(tmp_path / "chats.sqlite3", isolation_level=None) as other:
            other.execute("BEGIN EXCLUSIVE")
            for method, path, body in (("POST", "/ask", {"text": "Hi"}), ("GET", "/conversations/", None)):
                status, _, said = call(url, method, path, body)
                assert status == 503
                assert "req_" in json.loads(said)["error"]["hint"]
            other.execute("ROLLBACK")
        other.close()
        assert call(url, "POST", "/ask", {"text": "Hi"})[0] == 200


def test_an_answer_to_a_question_that_was_replaced_is_dropped(tmp_path: Path) -> None:
    store = Conversations(tmp_path / "chats.sqlite3")
    first = store.ask(PageQuestion(text="one"), "ada")
    assert first is not None
    second = store.ask(PageQuestion(text="one", conversation=first[0], replaces=0), "ada")
    assert second is not None
    store.add_reply(first[0], Reply(content="stopped"), question=first[2])
    store.add_reply(second[0], Reply(content="whole", finish_reason="stop"), question=second[2])
    kept = store.messages(first[0], "ada")
    assert kept is not None
    assert [message.content for message in kept] == ["one", "whole"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_names_the_model_or_what_is_wrong(kind: str, fake: FakeLMStudio) -> None:
    with serving(kind, fake, auth=None) as url:
        ready = json.loads(call(url, "GET", "/state")[2])
        assert (ready["state"], bool(ready["model"])) == ("ready", True)
    with serving(kind, cast("FakeLMStudio", Gone()), auth=None) as url:
        gone = json.loads(call(url, "GET", "/state")[2])
    assert gone["state"] == "unavailable"
    assert gone["message"] == "The model is not available right now."
    assert gone["request_id"] in gone["hint"]
    assert Gone.base_url not in json.dumps(gone)
