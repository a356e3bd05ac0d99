"""Who may ask the pages of FastAPI and Flask: foreign pages, strangers, large and deep bodies; and what every answer says."""

from __future__ import annotations

import http.client
import json
import stat
import subprocess
import sys
import threading
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBasicCredentials, HTTPBearer, OAuth2PasswordBearer
from flask import Flask, request
from werkzeug.serving import make_server

from lmdeck import ConfigurationError
from lmdeck.contrib.fastapi import lifespan, router
from lmdeck.contrib.flask import LMDeck, blueprint
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from lmdeck.web.background_loop import _background
from lmdeck.web.owners import owner_of
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KINDS = ("fastapi", "flask")
JSON = {"Content-Type": "application/json"}


def user_named(name: str) -> Any:
    """Return what an application's own code knows of a user, by the name in a header."""
    return {
        "none": None, "empty": "", "zero": 0, "one": 1, "ann": "ann", "uuid": uuid.UUID(int=5), "object": User(7),
        "anonymous": User(None), "true": True, "credentials": HTTPBasicCredentials(username="a", password="hunter2"),
        "dict": {"sub": "x"}, "nothing": object(), "half": "ann\ud83d", "nul": User("ann\0"),
    }[name]  # fmt: skip


class User:
    """A user of an application."""

    def __init__(self, id: object) -> None:  # as models have it
        self.id = id


def fastapi_app(fake: FakeLMStudio, **options: Any) -> FastAPI:
    def who(x_user: Annotated[str, Header()] = "none") -> Any:
        return user_named(x_user)

    app = FastAPI(lifespan=lifespan(base_url=fake.base_url))
    app.include_router(router(**{"auth": who, **options}))
    return app


def flask_app(fake: FakeLMStudio, **options: Any) -> Flask:
    app = Flask(__name__)
    app.config["LMDECK"] = {"BASE_URL": fake.base_url}
    LMDeck(app)
    app.register_blueprint(blueprint(**{"auth": lambda: user_named(request.headers.get("X-User", "none")), **options}))
    return app


@contextmanager
def serving(kind: str, fake: FakeLMStudio, **options: Any) -> Iterator[str]:
    if kind == "fastapi":
        with BackgroundServer(fastapi_app(fake, **options), listen(), lifespan=True) as server:
            yield server.base_url
        return
    with serving_flask(flask_app(fake, **options)) as url:
        yield url


@contextmanager
def serving_flask(app: Flask) -> Iterator[str]:
    made = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}"
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
        _background.wait(app.extensions["lmdeck"].streaming_client.aclose())


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False, cuts=False) as fake:
        yield fake


def call(
    url: str, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with closing(http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)) as connection:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {**JSON, **given})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


FOREIGN = [
    ({"Content_Type": "text/plain"}, 415),
    ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
    ({"Content_Type": ""}, 415),
    ({"Host": "rebound.evil.example"}, 400),
    ({"Host": "rebound.evil.example:8000"}, 400),
    ({"Host": "192.0.2.1"}, 400),
    ({"Host": "[::1].evil.example"}, 400),
    ({"Host": "0.0.0.0"}, 400),
    ({"Host": ""}, 400),
    ({"Origin": "https://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://localhost.evil.example"}, 403),
    ({"Sec_Fetch_Site": "cross-site"}, 403),
    ({"Sec_Fetch_Site": "same-site"}, 403),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_page_runs_no_tool_and_reads_nothing(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    with serving(kind, fake, auth=None, conversations=tmp_path / "c.sqlite3") as url:
        for headers, status in FOREIGN:
            got, _, body = call(url, "POST", "/ask", {"text": "delete everything"}, **headers)
            assert (got, headers) == (status, headers)
            assert json.loads(body)["error"]["hint"]
        for path in ("/", "/conversations/", "/static/chat.js", "/conversations/x/"):
            assert call(url, "GET", path, Host="rebound.evil.example")[0] == 400
        assert call(url, "DELETE", "/conversations/x/", Origin="https://evil.example")[0] == 403
        fake.assert_nothing_sent()
        assert json.loads(call(url, "GET", "/conversations/")[2]) == {"conversations": []}
        port = urlsplit(url).port
        for good in (
            {},
            {"Origin": url, "Sec_Fetch_Site": "same-origin"},
            {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"},
            {"Host": f"[::1]:{port}"},
            {"Content_Type": "application/json; charset=utf-8"},
            {"Sec_Fetch_Site": "none"},
        ):
            assert (call(url, "POST", "/ask", {"text": "Hi"}, **good)[0], good) == (200, good)


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_answers_to_its_allowed_hosts(kind: str, fake: FakeLMStudio) -> None:
    with serving(kind, fake, auth=None, allowed_hosts=["chat.example.org", ".inside.example.org"]) as url:
        for host, status in (("chat.example.org", 200), ("a.inside.example.org:443", 200), ("example.org", 400)):
            assert (call(url, "GET", "/", Host=host)[0], host) == (status, host)
        behind_a_proxy = {"Host": "127.0.0.1", "Origin": "https://chat.example.org"}
        assert call(url, "POST", "/ask", {"text": "Hi"}, **behind_a_proxy)[0] == 200


@pytest.mark.parametrize("kind", KINDS)
def test_unauthenticated_requests_are_401_everywhere(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    with serving(kind, fake, conversations=tmp_path / "c.sqlite3") as url:
        for user in ("none", "empty", "anonymous", "half", "nul"):
            for method, path in (
                ("POST", "/ask"),
                ("GET", "/"),
                ("GET", "/conversations/"),
                ("DELETE", "/conversations/x/"),
            ):
                body = {"text": "Hi"} if method == "POST" else None
                status, _, said = call(url, method, path, body, X_User=user)
                assert (status, user, path) == (401, user, path)
                assert json.loads(said)["error"]["message"]
    fake.assert_nothing_sent()


@pytest.mark.parametrize("kind", KINDS)
def test_each_user_has_conversations_of_their_own(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    users = ("zero", "one", "ann", "uuid", "object")
    with serving(kind, fake, conversations=tmp_path / "c.sqlite3") as url:
        keys = {user: call(url, "POST", "/ask", {"text": user}, X_User=user)[1]["X-Conversation"] for user in users}
        for user in users:
            listed = json.loads(call(url, "GET", "/conversations/", X_User=user)[2])["conversations"]
            assert [each["title"] for each in listed] == [user]
            for other in users:
                status = call(url, "GET", f"/conversations/{keys[other]}/", X_User=user)[0]
                assert status == (200 if other == user else 404)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("user", ["true", "credentials", "dict", "nothing"])
def test_what_does_not_name_a_user_is_an_error_and_never_stored(
    kind: str, user: str, fake: FakeLMStudio, tmp_path: Path
) -> None:
    path = tmp_path / "c.sqlite3"
    with serving(kind, fake, conversations=path) as url:
        assert call(url, "POST", "/ask", {"text": "Hi"}, X_User=user)[0] == 500
    assert b"hunter2" not in path.read_bytes()
    fake.assert_nothing_sent()


def checked(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> HTTPBasicCredentials:
    return credentials


@pytest.mark.parametrize(
    "auth", [HTTPBasic(), HTTPBearer(), OAuth2PasswordBearer(tokenUrl="t"), APIKeyHeader(name="k"), checked, HTTPBasic]
)
def test_credentials_are_refused_when_the_router_is_made(auth: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="credentials") as caught:
        router(auth=auth)
    assert "user's id" in caught.value.hint


@pytest.mark.parametrize(
    ("user", "owner"),
    [("a", "a"), (0, "0"), (uuid.UUID(int=1), str(uuid.UUID(int=1))), (User("x"), "x"), (User(""), None)],
)
def test_the_owner_is_a_text_an_integer_a_uuid_or_an_id(user: object, owner: str | None) -> None:
    assert owner_of(user) == owner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_without_end_is_refused(kind: str, is_chunked: bool, fake: FakeLMStudio) -> None:
    with serving(kind, fake, auth=None) as url:
        parts = [b'{"text": "', *[b"x" * (1 << 20)] * 6, b'"}']
        with closing(http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)) as connection:
            try:
                connection.request("POST", "/ask", iter(parts) if is_chunked else b"".join(parts), JSON)
                status = connection.getresponse().status
            except ConnectionError:  # the server did not wait for the rest
                status = 413
        assert status == 413
    fake.assert_nothing_sent()


@pytest.mark.parametrize(
    ("kind", "length", "status"), [("fastapi", 100, 408), ("fastapi", 8 << 30, 413), ("flask", 8 << 30, 413)]
)
def test_a_body_that_never_arrives_is_refused(
    kind: str, length: int, status: int, fake: FakeLMStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under WSGI, only the server can limit the time."""
    monkeypatch.setattr("lmdeck._incoming.disconnect.BODY_SECONDS", 0.1)
    monkeypatch.setattr("lmdeck._incoming.disconnect.DRAIN_SECONDS", 0.1)
    with (
        serving(kind, fake, auth=None) as url,
        closing(http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)) as connection,
    ):
        connection.putrequest("POST", "/ask")
        for name, value in {**JSON, "Content-Length": str(length)}.items():
            connection.putheader(name, value)
        connection.endheaders(b'{"text"')
        answer = connection.getresponse()
        assert (answer.status, bool(json.loads(answer.read())["error"]["hint"])) == (status, True)
    fake.assert_nothing_sent()


@pytest.mark.parametrize("kind", KINDS)
def test_a_deep_body_and_a_nul_are_errors_of_the_client(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    deep = b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with serving(kind, fake, auth=None, conversations=tmp_path / "c") as url:
        for body in (
            deep,
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b'{"text": "a\\u0000b"}',
            b'{"text": "\\ud83d"}',
            b"\xff",
            b"",
        ):
            status, _, said = call(url, "POST", "/ask", body)
            assert status == 400
            assert json.loads(said)["error"]["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_has_the_headers_of_a_page(kind: str, fake: FakeLMStudio, tmp_path: Path) -> None:
    with serving(kind, fake, auth=None, conversations=tmp_path / "c") as url:
        for method, path in (("GET", "/"), ("POST", "/ask"), ("GET", "/conversations/"), ("GET", "/static/chat.js")):
            headers = call(url, method, path, {"text": "Hi"} if method == "POST" else None)[1]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
        policy = call(url, "GET", "/")[1]["Content-Security-Policy"]
        for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        page = call(url, "GET", "/")[2].decode()
        assert "<script>" not in page
        assert "style=" not in page
        assert " on" not in page.lower().replace(" one", "").partition("<body")[2].split(">", 1)[0]


def test_the_file_of_conversations_is_readable_by_its_owner_only(fake: FakeLMStudio, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    with serving("flask", fake, auth=None, conversations=path) as url:
        assert call(url, "POST", "/ask", {"text": "Hi"})[0] == 200
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


ENGINE = """
import sys
sys.argv = ["lmdeck", "fake", "--port", "0", *sys.argv[1:]]
from lmdeck.cli import main
main()
"""


@pytest.mark.parametrize(
    ("options", "answered", "refused"),
    [
        ([], ["localhost", "127.0.0.1"], ["studio.example", "gpu", "192.0.2.1"]),
        (["--allowed-host", "studio.example"], ["localhost", "studio.example"], ["other.example"]),
        (["--host", "0.0.0.0"], ["localhost", "gpu", "192.0.2.1"], ["evil.example"]),
    ],
)
def test_the_command_line_s_servers_know_their_names(
    options: list[str], answered: list[str], refused: list[str]
) -> None:
    command = [sys.executable, "-u", "-c", ENGINE, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = urlsplit(process.stdout.readline().split()[6]).port
            url = f"http://127.0.0.1:{port}"
            got = {host: call(url, "GET", "/v1/models", Host=f"{host}:{port}")[0] for host in [*answered, *refused]}
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert got == {**dict.fromkeys(answered, 200), **dict.fromkeys(refused, 400)}
