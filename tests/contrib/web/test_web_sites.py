"""FastAPI and Flask over real sockets: the same bytes, the same rules, the model stopped when the browser leaves."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from asking import last_asked
from loopback import PATIENCE

if TYPE_CHECKING:
    from lmdeck.testing import FakeLMStudio


def begin(url: str, method: str, path: str, body: object = None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"})
    return connection


class Answered:
    """A whole response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(url: str, method: str, path: str, body: object = None) -> Answered:
    with closing(begin(url, method, path, body)) as connection:
        return Answered(connection.getresponse())


def events(response: Answered) -> list[dict[str, Any]]:
    blocks = response.body.decode().split("\n\n")
    return [json.loads(block[6:]) for block in blocks if block.startswith("data: ")]


def test_an_answer_streams_and_is_kept(url: str) -> None:
    response = call(url, "POST", "/ask", {"text": "hello"})
    assert response.status == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-accel-buffering"] == "no"
    key = response.headers["x-conversation"]
    told = events(response)
    assert "".join(each["text"] for each in told if each["type"] == "content") == "You said hello."
    assert "".join(each["text"] for each in told if each["type"] == "reasoning") == "It says so."
    assert told[-1]["type"] == "done"
    assert told[-1]["finish_reason"] == "stop"
    kept = call(url, "GET", f"/conversations/{key}/").json
    assert [(message["role"], message["content"]) for message in kept["messages"]] == [
        ("user", "hello"),
        ("assistant", "You said hello."),
    ]
    assert [message["reasoning"] for message in kept["messages"]] == ["", "It says so."]
    listed = call(url, "GET", "/conversations/").json["conversations"]
    assert {"id": key, "title": "hello"}.items() <= listed[0].items()
    assert call(url, "DELETE", f"/conversations/{key}/").status == 204
    assert call(url, "GET", f"/conversations/{key}/").status == 404


def test_a_conversation_continues_with_its_tools(url: str, fake: FakeLMStudio) -> None:
    response = call(url, "POST", "/ask", {"text": "use the tool"})
    key = response.headers["x-conversation"]
    told = events(response)
    result = next(each for each in told if each["type"] == "result")
    assert result["arguments"] == {"utc_offset": 1}
    assert "+01:00" in result["content"]
    events(call(url, "POST", "/ask", {"text": "and then", "conversation": key}))
    last = last_asked(fake)
    assert [message["role"] for message in last.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert last.tool_uses[0].result
    kept = call(url, "GET", f"/conversations/{key}/").json["messages"]
    assert kept[1]["calls"][0]["name"] == "current_time"


def test_a_call_that_failed_is_kept_as_one(url: str) -> None:
    response = call(url, "POST", "/ask", {"text": "use the wrong"})
    told = next(each for each in events(response) if each["type"] == "result")
    kept = call(url, "GET", f"/conversations/{response.headers['x-conversation']}/").json["messages"]
    (shown,) = kept[1]["calls"]
    assert told["failed"]
    assert shown["failed"]
    assert shown["id"] == told["id"]
    assert "nobody_has_it" in shown["content"]


def test_an_error_is_an_event_with_its_hint(url: str) -> None:
    told = events(call(url, "POST", "/ask", {"text": "cut"}))
    assert told[-1]["type"] == "error"
    assert told[-1]["hint"]


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"{oops", "cannot be decoded"), ({"text": " "}, "empty"), ({"text": "x" * 100_001}, "more than")],
)
def test_a_wrong_question_is_refused(url: str, body: object, said: str) -> None:
    response = call(url, "POST", "/ask", body)
    assert response.status == 400
    error = response.json["error"]
    assert said in error["message"]
    assert error["hint"]


def test_the_conversation_of_another_user_is_not_found(url: str) -> None:
    assert call(url, "POST", "/ask", {"text": "x", "conversation": "somebody-elses"}).status == 404
    assert call(url, "GET", "/static/..%2f..%2fconf.py").status == 404
    assert call(url, "GET", "/static/nothing.js").status == 404


def test_the_page_and_its_files_are_served(url: str) -> None:
    document = call(url, "GET", "/").body.decode()
    assert 'data-ask="/ask"' in document
    assert 'data-conversations="/conversations/"' in document
    for name, kind in (("chat.js", "javascript"), ("chat.css", "css"), ("markdown.js", "javascript")):
        response = call(url, "GET", f"/static/{name}")
        assert response.status == 200
        assert kind in response.headers["content-type"]


def test_the_model_is_stopped_when_the_browser_leaves(url: str, fake: FakeLMStudio) -> None:
    connection = begin(url, "POST", "/ask", {"text": "endless"})
    response = connection.getresponse()
    key = response.headers["x-conversation"]
    assert response.read(200)
    response.close()
    connection.close()
    fake.wait_until_idle(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while len(kept := call(url, "GET", f"/conversations/{key}/").json["messages"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert kept[1]["content"].startswith("la la")
