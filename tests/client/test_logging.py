"""What `debug=True` logs: every request and chunk, shortened, and never the token."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from asking import Way
from bodies import chunk
from lmdeck import LMStudio
from lmdeck.errors import APIError
from lmdeck.testing import FakeLMStudio


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    logger = logging.getLogger("lmdeck")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_requests_answers_and_chunks_are_logged(fake: FakeLMStudio, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """Each line names the request, so that it can be found in the server's log."""
    fake.when(lambda request: request.stream).frames(chunk("Hel"), chunk("lo.", "stop"))
    fake.when(lambda request: not request.stream).reply("Hello.")
    way.ask(fake.base_url, debug=True, api_token="sk-secret")
    request_id = fake.requests[0].headers["x-request-id"]
    lines = [f"{record.name} {record.getMessage()}" for record in caplog.records if record.name.startswith("lmdeck")]
    assert any(
        line.startswith(f"lmdeck.http {request_id} > POST {fake.base_url}/v1/chat/completions") for line in lines
    )
    assert any(line.startswith(f"lmdeck.http {request_id} < 200") for line in lines)
    assert any(line.startswith(f"lmdeck.stream {request_id}") and "lo." in line for line in lines)
    assert all(request_id in line for line in lines)
    assert "sk-secret" not in caplog.text


def test_a_secret_that_the_server_divides_over_chunks_is_in_no_line(
    fake: FakeLMStudio, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the client's own token nor another one; the words around it are logged, chunk by chunk."""
    own, other, password = "own-T0ken-12345", "glpat-x9Yw8Vu7Ts6Rq5Po4Nm3", "Swordfish-77"
    text = f"use {own} or {other}, the password is {password} then"
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
    fake.frames(*map(chunk, pieces), chunk("", "stop"))
    with LMStudio(base_url=fake.base_url, api_token=own, debug=True) as client:
        list(client.chat().user("Hi").stream())
    lines = [record.getMessage().partition(" ")[2] for record in caplog.records if record.name == "lmdeck.stream"]
    logged = [json.loads(line)["content"] for line in lines if "content" in line]
    shown = text
    for secret in (own, other, password):
        shown = shown.replace(secret, "x" * len(secret))
    assert ("".join(logged), [len(each) for each in logged]) == (shown, [len(each) for each in pieces])


def test_long_bodies_are_shortened(hello: FakeLMStudio, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """A prompt of any length is one line of a few thousand characters."""
    hello.add_model("m", context_length=30_000)
    way.ask(hello.base_url, text="x" * 100_000, debug=True)
    sent = next(record.getMessage() for record in caplog.records if " > POST " in record.getMessage())
    assert len(sent) < 3000
    assert f"({hello.requests[0].headers['content-length']} bytes)" in sent


def test_failures_and_retries_are_logged(fake: FakeLMStudio, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """A log tells why an answer took two attempts."""
    fake.error(503, "busy").reply("Hello.")
    way.ask(fake.base_url, debug=True, retry_attempts=2)
    assert "! ServerError: " in caplog.text
    assert "attempt 1 failed, retrying in" in caplog.text


def test_without_debug_nothing_is_logged(hello: FakeLMStudio, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """A library is silent unless it is asked."""
    way.ask(hello.base_url)
    assert not [record for record in caplog.records if record.name.startswith("lmdeck")]


def test_debug_without_logging_set_up_goes_to_stderr(
    hello: FakeLMStudio, way: Way, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`debug=True` shows the log even if the program has not set up logging."""
    monkeypatch.setattr(logging.getLogger("lmdeck"), "propagate", False)
    way.ask(hello.base_url, debug=True)
    assert " > POST " in capsys.readouterr().err


SERVER_URL = "https://mcp.example/s-4711-quiet-path/mcp"


def test_secrets_in_bodies_and_those_that_a_server_quotes_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    """They are removed from errors and from the log of the request; the rest of the server's message stays."""
    headers = {"X-Any": "quiet-header-4711"}
    server = {"type": "ephemeral_mcp", "server_label": "x", "server_url": SERVER_URL, "headers": headers}
    said = "The MCP server refused quiet-header-4711 and postgres://me:quiet-word-4711@db/x; max_tokens must be 1."
    with FakeLMStudio(strict=False, cuts=False) as fake, fake.client(debug=True, retry_attempts=1) as lm:
        fake.at("/api/v1/chat").body({"error": {"message": said}}, status=400)
        with caplog.at_level(logging.DEBUG, logger="lmdeck"), pytest.raises(APIError) as caught:
            lm.conversation("m", integrations=[server]).send("DB_PASSWORD=quiet-prompt-4711 for HOST=db")
    error = caught.value
    for text in (caplog.text, str(error), repr(error), json.dumps(error.body), str(error.args)):
        assert "4711" not in text
    assert "max_tokens must be 1" in error.message
    assert "HOST=db" in caplog.text
