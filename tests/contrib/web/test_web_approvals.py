"""Tool calls that wait for the user's decision: asked on one request, decided on another, run at most once."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastapi
import flask
import pytest
import urllib3
from werkzeug.serving import make_server

import lmdeck
from asking import last_asked
from lmdeck.contrib.fastapi import lifespan, router
from lmdeck.contrib.flask import LMDeck, blueprint
from lmdeck.errors import ConfigurationError
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from lmdeck.web.background_loop import iterate
from loopback import PATIENCE

PAID: list[int] = []


@lmdeck.tool
def pay(amount: int) -> str:
    """Pay an amount."""
    PAID.append(amount)
    return f"paid {amount}"


def make_chat(lm: Any) -> Any:
    return lm.chat().with_system("Be careful.").with_tools([pay])


@contextmanager
def fastapi_site(url: str, history: Path) -> Iterator[str]:
    app = fastapi.FastAPI(lifespan=lifespan(base_url=url))

    def user(request: fastapi.Request) -> str:
        return request.headers.get("x-user", "ada")

    app.include_router(
        router(auth=user, approve="pause", conversations=history, make_chat=make_chat, heartbeat=0.2), prefix="/chat"
    )
    with BackgroundServer(app, listen(), lifespan=True) as server:
        yield f"{server.base_url}/chat"


@contextmanager
def flask_site(url: str, history: Path) -> Iterator[str]:
    app = flask.Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": url}
    deck = LMDeck(app)
    app.register_blueprint(
        blueprint(
            auth=lambda: flask.request.headers.get("x-user", "ada"),
            approve="pause",
            conversations=history,
            make_chat=make_chat,
        ),
        url_prefix="/chat",
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/chat"
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()
        deck.client.close()
        list(iterate(closed(deck.streaming_client)))


async def closed(client: lmdeck.AsyncLMStudio) -> AsyncGenerator[bytes, None]:
    """Close a client on the loop that it runs on, which is that of the streams."""
    await client.aclose()
    yield b""


class Browser:
    """What a page does, for one user."""

    def __init__(self, root: str, user: str = "ada") -> None:
        self.root = root
        self.pool = urllib3.PoolManager(headers={"x-user": user, "content-type": "application/json"})

    def post(self, body: object) -> Any:
        return self.pool.request(
            "POST", f"{self.root}/ask", body=json.dumps(body).encode(), preload_content=False, timeout=PATIENCE
        )

    def ask(self, body: object) -> tuple[str, list[dict[str, Any]]]:
        answer = self.post(body)
        assert answer.status == 200, answer.data
        events = [json.loads(line[6:]) for line in answer.data.splitlines() if line.startswith(b"data: ")]
        return answer.headers["x-conversation"], events

    def load(self, key: str) -> Any:
        return self.pool.request("GET", f"{self.root}/conversations/{key}/").json()

    def paused(self, text: str = "Pay 5.") -> tuple[str, dict[str, Any]]:
        """Ask, and return the conversation and the event with which it waits."""
        key, events = self.ask({"text": text})
        (waiting,) = [event for event in events if event["type"] == "approval"]
        assert events[-1]["type"] == "done"
        return key, waiting


@pytest.fixture(params=["fastapi", "flask"])
def browser(request: pytest.FixtureRequest, tmp_path: Path, fake: FakeLMStudio) -> Iterator[Browser]:
    PAID.clear()
    fake.reset()
    site = fastapi_site if request.param == "fastapi" else flask_site
    with site(fake.base_url, tmp_path / "history.sqlite3") as root:
        browser = Browser(root)
        yield browser
        browser.pool.clear()


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(cuts=False) as fake:
        yield fake


def decisions(key: str, waiting: dict[str, Any], decision: object = True) -> dict[str, Any]:
    return {
        "conversation": key,
        "run": waiting["run"],
        "decisions": {call["id"]: decision for call in waiting["calls"]},
    }


def test_a_call_waits_runs_when_it_is_allowed_and_is_stored_with_its_result(
    browser: Browser, fake: FakeLMStudio
) -> None:
    """It can also be allowed after a reload, which shows the waiting calls."""
    fake.tool_call("pay", amount=5)
    fake.reply("It is paid.")
    key, waiting = browser.paused()
    (call,) = waiting["calls"]
    assert (call["name"], call["arguments"]) == ("pay", {"amount": 5})
    loaded = browser.load(key)
    assert loaded["paused"] == {"run": waiting["run"], "calls": [call["id"]]}
    assert loaded["messages"][-1]["ended"] == "paused"
    assert PAID == []
    again, events = browser.ask(decisions(key, waiting))
    assert again == key
    assert [event["type"] for event in events if event["type"] in {"running", "result", "done"}] == [
        "running", "result", "done",
    ]  # fmt: skip
    assert {event["id"] for event in events if "id" in event} == {call["id"]}
    assert "".join(event.get("text", "") for event in events) == "It is paid."
    loaded = browser.load(key)
    assert loaded["paused"] is None
    assert [message["role"] for message in loaded["messages"]] == ["user", "assistant", "assistant"]
    assert loaded["messages"][1]["calls"][0]["content"] == "paid 5"
    assert "ended" not in loaded["messages"][1]
    assert PAID == [5]
    sent = last_asked(fake).body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]


def test_only_the_first_of_simultaneous_decisions_counts(browser: Browser, fake: FakeLMStudio) -> None:
    """The others learn that it no longer waits."""
    fake.tool_call("pay", amount=5)
    fake.reply("It is paid.")
    key, waiting = browser.paused()
    start = threading.Barrier(6)
    statuses: list[int] = []

    def decide() -> None:
        own = Browser(browser.root)
        start.wait(PATIENCE)
        answer = own.post(decisions(key, waiting))
        answer.read()
        statuses.append(answer.status)
        own.pool.clear()

    threads = [threading.Thread(target=decide) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]
    assert PAID == [5]


def test_a_refusal_is_sent_to_the_model_and_shown(browser: Browser, fake: FakeLMStudio) -> None:
    """The model and the page both get the refusal with its reason."""
    fake.tool_call("pay", amount=5)
    fake.reply("As you wish.")
    key, waiting = browser.paused()
    browser.ask(decisions(key, waiting, "too expensive"))
    (_, refused, last) = browser.load(key)["messages"]
    assert refused["calls"][0]["failed"]
    assert "too expensive" in refused["calls"][0]["content"]
    assert last["content"] == "As you wish."
    assert PAID == []


def test_wrong_decisions_change_nothing(browser: Browser, fake: FakeLMStudio) -> None:
    """Invalid decisions are refused, and so are those of another user."""
    fake.tool_call("pay", amount=5)
    fake.reply("It is paid.")
    key, waiting = browser.paused()
    right = decisions(key, waiting)
    for wrong, status in [
        ({**right, "decisions": {}}, 400),
        ({**right, "decisions": {"nobody": True}}, 400),
        ({**right, "decisions": dict.fromkeys(right["decisions"], 5)}, 400),
        ({**right, "run": "run_0"}, 409),
        ({**right, "conversation": "nobody's"}, 409),
        ({"run": waiting["run"]}, 400),
    ]:
        assert browser.post(wrong).status == status
    stranger = Browser(browser.root, "eve")
    assert stranger.post(right).status == 409
    stranger.pool.clear()
    assert PAID == []
    browser.ask(right)
    assert PAID == [5]


def test_a_new_question_discards_the_waiting_calls(browser: Browser, fake: FakeLMStudio) -> None:
    """The model does not hear of them."""
    fake.tool_call("pay", amount=5)
    fake.reply("Hello.")
    key, waiting = browser.paused()
    browser.ask({"text": "Never mind.", "conversation": key})
    assert browser.post(decisions(key, waiting)).status == 409
    assert browser.load(key)["paused"] is None
    assert [message["role"] for message in last_asked(fake).body["messages"]] == ["system", "user", "user"]
    assert PAID == []


def test_a_resumed_run_may_pause_again(browser: Browser, fake: FakeLMStudio) -> None:
    """Each further answer with calls pauses it."""
    fake.tool_call("pay", amount=5)
    fake.tool_call("pay", amount=7)
    fake.reply("Both are paid.")
    key, waiting = browser.paused()
    _, events = browser.ask(decisions(key, waiting))
    (second,) = [event for event in events if event["type"] == "approval"]
    assert second["run"] != waiting["run"]
    browser.ask(decisions(key, second))
    messages = browser.load(key)["messages"]
    assert [call["content"] for message in messages for call in message["calls"]] == ["paid 5", "paid 7"]
    assert messages[-1]["content"] == "Both are paid."
    assert PAID == [5, 7]


def test_what_ran_is_kept_where_the_rest_of_the_answer_fails(browser: Browser, fake: FakeLMStudio) -> None:
    """The call with its result, and that the answer did not end well; it is not repeated."""
    fake.tool_call("pay", amount=5)
    fake.fail("cut", after_chunks=2, reply="It is paid, and more")
    key, waiting = browser.paused()
    _, events = browser.ask(decisions(key, waiting))
    assert events[-1]["type"] == "error"
    loaded = browser.load(key)
    assert loaded["messages"][1]["calls"][0]["content"] == "paid 5"
    assert loaded["messages"][-1]["ended"] == "cut"
    assert loaded["paused"] is None
    assert browser.post(decisions(key, waiting)).status == 409
    assert PAID == [5]


def test_runs_pause_only_where_something_stores_them() -> None:
    """Otherwise the page would hold what it may not change."""
    for make in (router, blueprint):
        with pytest.raises(ConfigurationError, match="stored"):
            make(auth=None, approve="pause")
