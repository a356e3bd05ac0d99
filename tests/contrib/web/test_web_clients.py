"""The clients of FastAPI and Flask applications: settings, life, commands, and who is let in."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import FastAPI, Header, HTTPException
from fastapi.testclient import TestClient
from flask import Flask

from lmdeck import ConfigurationError
from lmdeck.contrib.fastapi import LM, lifespan, router, stream_response
from lmdeck.contrib.flask import LMDeck, blueprint
from lmdeck.testing import FakeLMStudio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def lm_studio() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False) as fake:
        yield fake


def test_fastapi_gives_the_client_and_keeps_the_applications_own_lifespan(lm_studio: FakeLMStudio) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        told.append("begun")
        yield {"mine": 1}
        told.append("ended")

    app = FastAPI(lifespan=lifespan(own, base_url=lm_studio.base_url))

    @app.get("/ask")
    async def ask(q: str, lm: LM) -> dict[str, str]:
        return {"answer": (await lm.chat().user(q).send()).content}

    @app.get("/say")
    async def say(q: str, lm: LM) -> object:
        return stream_response(lm.chat().user(q), encoding="vercel")

    with TestClient(app) as client:
        assert client.get("/ask", params={"q": "Hi"}).json() == {"answer": "You said: Hi"}
        said = client.get("/say", params={"q": "Hi"})
        assert said.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert said.text.endswith("data: [DONE]\n\n")
        assert told == ["begun"]
    assert told == ["begun", "ended"]


def test_fastapi_without_lifespan_says_so() -> None:
    app = FastAPI()

    @app.get("/ask")
    async def ask(lm: LM) -> str:
        return str(lm)

    with TestClient(app) as client, pytest.raises(ConfigurationError, match="lifespan"):
        client.get("/ask")


def test_fastapi_authenticates_users_and_separates_them(lm_studio: FakeLMStudio, tmp_path: Path) -> None:
    async def user(x_user: Annotated[str, Header()] = "") -> str:
        if not x_user:
            raise HTTPException(401)
        return x_user

    app = FastAPI(lifespan=lifespan(base_url=lm_studio.base_url))
    app.include_router(router(auth=user, conversations=tmp_path / "c.sqlite3", title="<Chat>"), prefix="/chat")
    with TestClient(app) as client:
        assert client.post("/chat/ask", json={"text": "Hi"}).status_code == 401
        assert client.get("/chat/").status_code == 401
        ada, bob = {"x-user": "ada"}, {"x-user": "bob"}
        key = client.post("/chat/ask", json={"text": "Hi"}, headers=ada).headers["x-conversation"]
        assert client.get(f"/chat/conversations/{key}/", headers=ada).status_code == 200
        assert client.get(f"/chat/conversations/{key}/", headers=bob).status_code == 404
        assert client.delete(f"/chat/conversations/{key}/", headers=bob).status_code == 404
        assert client.get("/chat/conversations/", headers=bob).json() == {"conversations": []}
        document = client.get("/chat/", headers=ada).text
        assert "&lt;Chat&gt;" in document
        assert 'data-ask="/chat/ask"' in document


def test_without_a_store_the_page_keeps_the_history(lm_studio: FakeLMStudio) -> None:
    app = FastAPI(lifespan=lifespan(base_url=lm_studio.base_url))
    app.include_router(router(auth=None))
    before = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "system", "content": "x"},
    ]
    with TestClient(app) as client:
        response = client.post("/ask", json={"text": "three", "messages": before})
        assert response.status_code == 200
        assert "x-conversation" not in response.headers
    assert [message["role"] for message in lm_studio.requests[-1].messages] == ["user", "assistant", "user", "user"]


def test_flask_takes_its_settings_and_refuses_wrong_ones(lm_studio: FakeLMStudio) -> None:
    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": lm_studio.base_url, "TIMEOUT": 5}
    lmdeck = LMDeck()
    lmdeck.init_app(app)
    assert lmdeck.client.chat().user("Hi").send().content == "You said: Hi"
    assert lmdeck.client is lmdeck.client
    wrong = Flask("wrong")
    wrong.config["LMDECK"] = {"TIMOUT": 5}
    with pytest.raises(ConfigurationError, match="TIMOUT"):
        LMDeck(wrong)


def test_flask_has_lmdecks_commands_with_its_own_settings(
    lm_studio: FakeLMStudio, capfd: pytest.CaptureFixture[str]
) -> None:
    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": lm_studio.base_url}
    LMDeck(app)
    done = app.test_cli_runner().invoke(args=["lmdeck", "ask", "Hello"])
    assert done.exit_code == 0
    assert "You said: Hello" in done.output + capfd.readouterr().out


def test_flask_refuses_strangers_and_applications_without_lmdeck(lm_studio: FakeLMStudio) -> None:
    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": lm_studio.base_url}
    LMDeck(app)
    app.register_blueprint(blueprint(auth=lambda: None), url_prefix="/chat")
    assert app.test_client().post("/chat/ask", json={"text": "Hi"}).status_code == 401
    bare = Flask("bare")
    bare.testing = True
    bare.register_blueprint(blueprint(auth=None))
    with pytest.raises(ConfigurationError, match="LMDeck"):
        bare.test_client().post("/ask", json={"text": "Hi"})
