"""Recordings hold no secret, and a recorder asks its upstream alone, for the very path that it was asked for."""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import stat
import string
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from lmdeck._incoming.trust import AllowedHosts
from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece, load
from lmdeck._recordings.recorder import Recorder
from lmdeck._recordings.redaction import redact
from lmdeck._redaction.exchange import Redaction, redacted
from lmdeck._redaction.values import REMOVED
from lmdeck.contrib.asgi import RepairProxy
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from loopback import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "quite-a-secret-4711"
JSON = {"Content-Type": "application/json"}


@contextmanager
def recording(path: Path, **keywords: Any) -> Iterator[tuple[FakeLMStudio, str]]:
    with (
        FakeLMStudio(cuts=False, strict=False) as fake,
        BackgroundServer(Recorder(fake.base_url, path, **keywords), listen()) as recorder,
    ):
        yield fake, recorder.base_url


def post(url: str, path: str, body: object, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(str(urlsplit(url).netloc), timeout=PATIENCE)
    with closing(connection):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {**JSON, **{name.replace("_", "-"): headers[name] for name in headers}})
        answer = connection.getresponse()
        return answer.status, answer.read()


def sent_raw(url: str, request: bytes) -> bytes:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        parts = []
        while data := sock.recv(65536):
            parts.append(data)
        return b"".join(parts)


def shown_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: part.removed() for name, part in Redaction().headers(headers).items()}


@pytest.mark.parametrize(
    "header",
    [
        "Authorization", "Proxy-Authorization", "X-LMStudio-Token", "X-Goog-Api-Key", "X-Api-Token", "Cookie", "X-Api-Key",
        "Ocp-Apim-Subscription-Key", "Api-Key", "X-Auth-Token", "X-Amz-Security-Token", "X-Session-Id", "X-Secret", "Token",
        "X-Access-Token", "X-Functions-Key", "X-Signature", "X-CSRFToken", "Cf-Access-Client-Secret", "X-Password",
        "api_key", "X-Bearer", "DPoP", "X-Pat", "X-Vercel-Protection-Bypass", "X-Passphrase", "X-Otp", "X-Ms-Client-Principal",
    ],
)  # fmt: skip
def test_a_header_that_may_hold_a_secret_is_removed(header: str) -> None:
    assert shown_headers({header: SECRET}) == {header.lower(): REMOVED}


def test_other_headers_stay() -> None:
    kept = {
        "content-type": "text/plain",
        "x-litellm-key-spend": "0.0021",
        "x-ratelimit-remaining-tokens": "7",
        "x-author": "me",
        "accept": "*/*",
    }
    assert shown_headers(kept) == kept


BODIES = [
    {"integrations": [{"type": "ephemeral_mcp", "server_url": "https://mcp.example", "headers": {"X-Any": SECRET}}]},
    {"integrations": [{"type": "ephemeral_mcp", "server_url": f"https://mcp.example/s/{SECRET}/mcp"}]},
    {"integrations": [{"server_url": f"https://user:{SECRET}@mcp.example/"}]},
    {"tools": [{"type": "mcp", "server_url": f"https://mcp.example?token={SECRET}", "authorization": SECRET}]},
    {"mcp_servers": [{"authorization_token": SECRET}]},
    {"messages": [{"role": "user", "content": f"curl -H 'Authorization: Bearer {SECRET}' https://a.example"}]},
    {"messages": [{"role": "user", "content": f"see https://a.example/x?api_key={SECRET}&page=2"}]},
    {"metadata": {"apiKey": SECRET, "password": SECRET, "client_secret": SECRET}},
    {"note": SECRET, "credentials": {"user": "me", "value": [SECRET]}},
    {"headers": [["X-Any", f"Bearer {SECRET}"]], SECRET: "a name of a field"},
    {
        "mcpServers": {
            "a": {
                "env": {"ANY": SECRET},
                "args": ["--api-key", SECRET, f"--token={SECRET}"],
                "url": f"https://a/{SECRET}",
            }
        }
    },
    {
        "cookies": {"sid": SECRET},
        "url": f"https://{SECRET}@git.example/x",
        "next": f"https://a/?a=1;access%5Ftoken={SECRET}",
    },
    {"arguments": json.dumps(json.dumps({"password": SECRET}))},
]


@pytest.mark.parametrize(
    "text",
    [
        "sk-lm-AbCdEf12:GhIjKl34MnOp", "AKIA" + "IOSFODNN7EXAMPLE", "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
        "OPENAI_API_KEY={}", "export LM_API_TOKEN={}", 'api_key: "{}"', "password={}", "bearer: {}", "https://host/#access_token={}",
        "-----BEGIN PRIVATE KEY-----\n{}\n", "nvapi" + "-abcdefghijklmnop1234", "ya29" + ".a0AfH6SMBabcdefghijklmnop1234",
        "rk" + "_live_abcdefghijklmnop1234", "Basic dXNlcjpwYXNzd29yZA==",
        '{{"token": "{}"}}', "AccountKey={}", "Cookie: sid={}; a=b", "curl -u user:{}", "login me password {}",
        "password is: {}", "https://hooks.slack.com/services/T0/B0/{}",
    ],
)  # fmt: skip
def test_a_secret_in_a_text_is_known_by_its_form_or_name(text: str) -> None:
    """This covers secrets of LM Studio and other services, in `.env` files and in URLs."""
    written = text.format(SECRET)
    shown = redacted(f"Use {written} now")
    assert SECRET not in shown
    assert written not in shown
    assert REMOVED in shown


@pytest.mark.parametrize("name", ["auth", "bearer", "pwd", "passphrase", "signing_key", "connection_string"])
def test_a_field_that_may_hold_a_secret_is_removed(name: str) -> None:
    assert json.loads(redacted(json.dumps({"a": {name: SECRET}}))) == {"a": {name: REMOVED}}


@pytest.mark.parametrize("body", BODIES)
def test_secrets_in_bodies_are_removed_on_the_way_to_the_file(tmp_path: Path, body: dict[str, Any]) -> None:
    """They are also removed from an answer that quotes them; the upstream gets them unchanged."""
    path = tmp_path / "c.jsonl"
    with recording(path) as (fake, url):
        fake.at("/v1/chat/completions").raw(f'{{"you sent": "{SECRET}"}}'.encode(), content_type="application/json")
        status, answer = post(url, "/v1/chat/completions", body, X_LMStudio_Token=SECRET)
        assert (status, SECRET.encode() in answer) == (200, True)
        assert SECRET in json.dumps(fake.requests[-1].body)
    assert SECRET not in path.read_text(encoding="utf-8")
    (exchange,) = load(path)
    assert len(exchange.body) == len(answer)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_no_secret_is_recorded_as_it_was(tmp_path: Path) -> None:
    body = {
        "model": "m",
        "max_tokens": 5,
        "logit_bias": {"token": 1},
        "messages": [
            {
                "role": "user",
                "content": "What is a bearer token? Basic programming. See https://a.example/path?page=2#x",
            }
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"properties": {"token": {"type": "string"}}}}}
        ],
        "integrations": [{"type": "ephemeral_mcp", "server_url": "https://mcp.example"}],
    }
    path = tmp_path / "c.jsonl"
    with recording(path) as (fake, url):
        fake.at("/v1/chat/completions").body({"ok": True})
        post(url, "/v1/chat/completions", body)
    assert load(path)[0].request == body


def exchange_of(body: object, *pieces: bytes, headers: dict[str, str] | None = None) -> RecordedExchange:
    """Return a redacted exchange."""
    exchange = RecordedExchange(
        method="POST",
        path="/v1/chat/completions",
        request_headers=headers or {},
        pieces=[RecordedPiece.of(piece, 0.1) for piece in pieces],
    )
    redact(exchange, json.dumps(body).encode())
    return exchange


def test_a_secret_that_two_pieces_of_an_answer_share_is_overwritten() -> None:
    parts = [f"token {SECRET[:5]}".encode(), f"{SECRET[5:]} is".encode(), b" bad"]
    exchange = exchange_of({}, *parts, headers={"Authorization": f"Bearer {SECRET}"})
    assert exchange.body == b"token " + b"x" * len(SECRET) + b" is bad"
    assert [len(piece.data) for piece in exchange.pieces] == [len(part) for part in parts]


def test_a_placeholder_is_not_searched_for_in_the_answer() -> None:
    exchange = exchange_of({}, b"a token is not-needed", headers={"X-Api-Key": "not-needed"})
    assert exchange.body == b"a token is not-needed"


def test_a_secret_is_known_where_a_web_page_quotes_it() -> None:
    exchange = exchange_of({}, b"<p>a&amp;b&lt;Swordfish is unknown</p>", headers={"X-Api-Key": "a&b<Swordfish"})
    assert b"Swordfish" not in exchange.body


def test_the_password_of_basic_authentication_is_known() -> None:
    credentials = base64.b64encode(f"user:{SECRET}".encode()).decode()
    exchange = exchange_of({}, f"wrong password {SECRET}".encode(), headers={"Authorization": f"Basic {credentials}"})
    assert exchange.body == b"wrong password " + b"x" * len(SECRET)


def random_text(characters: str, length: int) -> str:
    return "".join(random.Random(length).choices(characters, k=length))


LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


@pytest.mark.parametrize(
    ("begin", "characters", "length"),
    [
        ("ghp_", LETTERS, 36), ("glrt-", LETTERS, 20), ("SK", HEX, 32), ("AC", HEX, 32), ("GOCSPX-", LETTERS + "-_", 28),
        ("hvs.", LETTERS + "_", 90), ("dckr_pat_", LETTERS + "-_", 27), ("sbp_", HEX, 40), ("NRAK-", LETTERS[26:], 27),
        ("fo1_", LETTERS + "-_", 43), ("1/1234567890123456:", HEX, 32), ("1234567890:AA", LETTERS + "-_", 33),
        ("abc8Q~", LETTERS, 34), ("AGE-SECRET-KEY-1", LETTERS[26:], 58), ("$2b$10$", LETTERS, 53), ("pcsk_ab12C_", LETTERS, 60),
        ("unheard_of_live_", LETTERS, 40), ("", LETTERS, 48), ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", LETTERS, 43),
    ],
)  # fmt: skip
def test_a_token_is_known_by_its_format(begin: str, characters: str, length: int) -> None:
    token = begin + random_text(characters, length)
    assert redacted(f"Take {token} for it.") == f"Take {REMOVED} for it."
    quoted = json.dumps({"content": f"see {token}, please"})
    assert json.loads(redacted(quoted)) == {"content": f"see {REMOVED}, please"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("DB_PASSWORD: {}\nDB_USER: me", "DB_PASSWORD: (removed)\nDB_USER: me"),
        ("password: swordfish\nuser: me", "password: (removed)\nuser: me"),
        ("define('DB_PASSWORD', '{}');", "define('DB_PASSWORD', '(removed)');"),
        ("WITH PASSWORD '{}';", "WITH PASSWORD '(removed)';"),
        ("docker login -u me -p {} host", "docker login -u me -p (removed) host"),
        ("Server=db;Pwd={};Encrypt=true", "Server=db;Pwd=(removed);Encrypt=true"),
        ("deploy --api-key {} --region eu", "deploy --api-key (removed) --region eu"),
        ("Log in as me, password {}.", "Log in as me, password (removed)."),
        ("Das Passwort lautet {}.", "Das Passwort lautet (removed)."),
        ("La contraseña es {} y", "La contraseña es (removed) y"),
        ("me:{}@tcp(db:1)/x", "me:(removed)@tcp(db:1)/x"),
        ('{{"password": {{"label": "Pass", "value": "{}"}}}}', '{{"password": {{"label": "Pass", "value": "(removed)"}}}}'),
        ("My card PIN: 4711", "My card PIN: (removed)"),
        ("postgres://me:p/w#d@db/x", "postgres://me:(removed)@db/x"),
        ("?next=%2Fa%3Faccess_token%3D{}%26b", "?next=%2Fa%3Faccess_token%3D(removed)%26b"),
        ("<parameter=password>\n{}\n</parameter>", "<parameter=password>\n(removed)\n</parameter>"),
        ("<arg_key>pwd</arg_key>\n<arg_value>{}</arg_value>", "<arg_key>pwd</arg_key>\n<arg_value>(removed)</arg_value>"),
        ('{{"a": "{{\\"db-password\\": \\"{}\\"}}"}}', '{{"a": "{{\\"db-password\\": \\"(removed)\\"}}"}}'),
        ('{{"name": "Authorization", "value": "{}"}}', '{{"name": "Authorization", "value": "(removed)"}}'),
        ('{{"password": "{}", "messages": [', '{{"password": "(removed)", "messages": ['),
        ("requests.get(url, auth=('me', '{}'))", "requests.get(url, auth=('me', '(removed)'))"),
        ('HTTPBasicAuth("me", "{}")', 'HTTPBasicAuth("me", "(removed)")'),
        ("- name: DB_PASSWORD\n  value: {}\n- name: HOST", "- name: DB_PASSWORD\n  value: (removed)\n- name: HOST"),
        ("name=&quot;csrf_token&quot; value=&quot;{}&quot;&gt;", "name=&quot;csrf_token&quot; value=&quot;(removed)&quot;&gt;"),
        ('{{"pin": 4711, "tokens": 4711}}', '{{"pin": "(removed)", "tokens": 4711}}'),
        ('form-data; name="api_key"\r\n\r\n{}\r\n--', 'form-data; name="api_key"\r\n\r\n(removed)\r\n--'),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name_and_the_rest_stays(text: str, shown: str) -> None:
    assert redacted(text.replace("{{", "{").replace("}}", "}").replace("{}", SECRET)) == shown.replace(
        "{{", "{"
    ).replace("}}", "}")


@pytest.mark.parametrize(
    "text",
    [
        "A token is a piece of a word; the secret is time. How do I reset my password? Password: at least 12 characters.",
        "eos_token: <|im_end|>, max_tokens=512, next_page_token: CAUQAA, token_type: bearer, sort_key: created_at",
        "The task-force met sk-learn; Qwen3-Coder-480B-A35B-Instruct-FP8 and lmstudio-community/Qwen2.5-7B-Instruct-GGUF",
        "token = request.headers.get('Authorization'); password: str; api_key: SecretStr; key={item.id}; d['password']",
        "api_key=os.environ['API_KEY'] -H 'Authorization: Bearer $API_KEY' ${{ secrets.NPM_TOKEN }} <your-token>",
        "https://en.wikipedia.org/wiki/Secret_key?action=history#Access_token anna@example.com http://localhost:1234/v1",
        f"sha256 {random_text(HEX, 64)}, commit {random_text(HEX, 40)}, 123e4567-e89b-12d3-a456-426614174000",
        f"chatcmpl-{random_text(LETTERS, 29)} call_{random_text(LETTERS, 24)} sha512-{random_text(LETTERS, 86)}==",
        '{"usage": {"prompt_tokens": 5}, "logprobs": {"content": [{"token": "Hello", "logprob": -0.1}]}, "stop": ["<|e|>"]}',
        '{"properties": {"password": {"type": "string", "description": "of the user"}}, "required": ["user", "password"]}',
        f'{{"url": "data:image/png;base64,{random_text(LETTERS, 900)}", "embedding": "{random_text(LETTERS, 60)}"}}',
        "permissions:\n  id-token: write\n; CREATE TABLE t (password VARCHAR(255) NOT NULL); String token = lexer.nextToken();",
        "Unexpected token '<', \"<!DOCTYPE\"; unexpected token: 'export'; my PIN code is 560001",
        "API_KEY=sk-...3fA, token=sk-p****1, WHERE token = :token AND password = crypt($1, 'bf')",
        "DB_PASSWORD_FILE=/run/x CREDENTIALS=/etc/gcp/sa.json TOKEN=~/.cache/token session: 1234",
        f"{{7B1987BC-9152-EE1A-8B6F-CA9814DA1105}} h1:{random_text(LETTERS, 43)}=",
        f"ssh-ed25519 AAAAC3NzaC1{random_text(LETTERS, 57)} me@host",
        "Qwen3-235B-A22B-Instruct-2507-UD-Q4_K_XL-00001-of-00003.gguf QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPBTN",
        "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUabc\n-----END CERTIFICATE-----",
    ],
)  # fmt: skip
def test_what_only_resembles_a_secret_stays(text: str) -> None:
    assert redacted(text) == text


def event(delta: dict[str, object]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def call(index: int, arguments: str) -> bytes:
    return event({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]})


def test_a_secret_that_a_stream_divides_over_its_events_is_overwritten() -> None:
    """This holds in content and in the arguments of alternating calls; every event stays JSON of its length."""
    token = "hf_" + random_text(LETTERS[:52], 34)
    login, weather = json.dumps({"password": SECRET}), json.dumps({"city": "a place"})
    pieces = [event({"content": f"take {token} now"[at : at + 4]}) for at in range(0, len(token) + 9, 4)]
    for at in range(0, len(login), 3):
        pieces += [call(0, login[at : at + 3]), call(1, weather[at : at + 3])]
    exchange = exchange_of({}, *pieces)
    content, arguments = "", ["", ""]
    for line in exchange.body.decode().split("\n\n")[:-1]:
        delta = json.loads(line.removeprefix("data: "))["choices"][0]["delta"]
        content += delta.get("content", "")
        for part in delta.get("tool_calls", ()):
            arguments[part["index"]] += part["function"]["arguments"]
    assert content == f"take {'x' * len(token)} now"
    assert [json.loads(each) for each in arguments] == [{"password": "x" * len(SECRET)}, {"city": "a place"}]
    assert [len(piece.data) for piece in exchange.pieces] == [len(piece) for piece in pieces]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (f"bearer, {random_text(LETTERS, 43)}", f"bearer, {REMOVED}"),
        (f"realtime, openai-insecure-api-key.{random_text(LETTERS, 40)}, v1", f"realtime, {REMOVED}, v1"),
        ("graphql-transport-ws, openai-beta.realtime-v1", "graphql-transport-ws, openai-beta.realtime-v1"),
    ],
)
def test_a_token_among_protocols_of_a_websocket_is_removed(value: str, shown: str) -> None:
    assert shown_headers({"Sec-WebSocket-Protocol": value}) == {"sec-websocket-protocol": shown}


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "text",
    [
        "password=",
        "sk-",
        '["',
        '{"a":',
        "%25",
        "://",
        "<password>",
        "eyJaaaaaaaaaa.",
        "-----BEGIN PRIVATE KEY-----",
        "login ",
    ],
)
def test_the_time_of_a_redaction_is_linear(text: str) -> None:
    """A quadratic one would not end."""
    assert redacted(text * (300_000 // len(text)))


def test_a_body_nested_without_end_is_passed_on_and_recorded(tmp_path: Path) -> None:
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    path = tmp_path / "c.jsonl"
    with recording(path) as (fake, url):
        fake.at("/v1/chat/completions").body({"ok": True})
        assert post(url, "/v1/chat/completions", deep)[0] == 200
        assert post(url, "/v1/models/load", b"{oops")[0] == 200
    assert load(path)[0].request == deep.decode()


@pytest.mark.parametrize(
    "target", ["/a%2Fb%3Fq%23f", "/v1/models/a%20b?x=%41", "//v1/models", "/v1/%E4%BD%A0", "/a;b=1"]
)
def test_the_path_is_forwarded_unchanged(tmp_path: Path, target: str) -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                seen.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        upstream = f"http://127.0.0.1:{server.getsockname()[1]}"
        with BackgroundServer(Recorder(upstream, tmp_path / "c"), listen()) as recorder:
            request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            assert b"200 OK" in sent_raw(recorder.base_url, request)
        thread.join()
    assert seen[0].split(b" ")[1].decode() == target


@pytest.mark.parametrize(
    "form", ["@127.0.0.1:{port}/x", "http://127.0.0.1:{port}/x", ".evil.example/x", ":{port}/x", "*"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
def test_a_recorder_forwards_only_to_its_upstream(tmp_path: Path, form: str, method: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, recording(tmp_path / "c") as (fake, url):
        other.setblocking(False)
        target = form.format(port=other.getsockname()[1])
        answer = sent_raw(url, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 400 " in answer.splitlines()[0]
        with pytest.raises(BlockingIOError):
            other.accept()
        assert fake.requests == []


PLAIN = b'{"messages": []}'
FOREIGN = [
    ({"Host": "rebound.evil.example"}, 400),
    ({"Host": ""}, 400),
    ({"Host": "localhost.evil.example"}, 400),
    ({"Host": "192.0.2.7"}, 400),
    ({"Content-Type": "text/plain"}, 415),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content-Type": "text/plain; application/json"}, 415),
    ({"Content-Type": ""}, 415),
    ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
    ({"Content-Type": "application/json", "Origin": "null"}, 403),
    ({"Content-Type": "application/json", "Origin": "http://localhost:9"}, 403),
    ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Content-Type": "application/json", "Sec-Fetch-Site": "same-site"}, 403),
    ({"Content-Type": "application/json", "Origin": "{own}", "ORIGIN": "https://evil.example"}, 403),
    ({"Content-Type": "text/plain", "CONTENT-TYPE": "application/json"}, 415),
]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/models/load", "/api/v1/models/download"])
@pytest.mark.parametrize("kind", ["fake", "recorder"])
def test_pages_of_other_sites_reach_neither_fake_nor_recorder(
    tmp_path: Path, kind: str, path: str, headers: dict[str, str], status: int
) -> None:
    with recording(tmp_path / "c") as (fake, url):
        server = fake.base_url if kind == "fake" else url
        given = {name.replace("-", "_"): value.replace("{own}", server) for name, value in headers.items()}
        got, body = post(server, path, PLAIN, **given)
        assert got == status
        assert json.loads(body)["error"] if kind == "fake" else body
        assert fake.pending == 0
        assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("kind", ["fake", "recorder", "proxy"])
def test_a_body_without_end_is_answered(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it to end, or to begin; one that ends is read first, so that its sender sees the refusal."""
    for module in ("server.request_bodies", "server.requests.body", "_recordings.recorder", "relay.proxy"):
        monkeypatch.setattr(f"lmdeck.{module}.MAX_BODY_BYTES", 1000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with (
        recording(tmp_path / "c") as (fake, recorder),
        BackgroundServer(RepairProxy(base_url=fake.base_url), listen(), lifespan=True) as proxy,
    ):
        url = {"fake": fake.base_url, "recorder": recorder, "proxy": proxy.base_url}[kind]
        endless = sent_raw(url, head + b"Transfer-Encoding: chunked\r\n\r\n1388\r\n" + b" " * 5000 + b"\r\n")
        assert endless.split(b" ")[1] == b"413"
        monkeypatch.setattr("lmdeck._incoming.disconnect.DRAIN_SECONDS", 0.1)
        announced = sent_raw(url, head + b"Content-Length: 5000000000\r\n\r\n{")
        assert announced.split(b" ")[1] == b"413"
        monkeypatch.setattr("lmdeck._incoming.disconnect.BODY_SECONDS", 0.1)
        late = sent_raw(url, head + b"Content-Length: 900\r\n\r\n{")
        assert late.split(b" ")[1] == b"408"
        assert b"did not arrive within 0.1 s" in late
        monkeypatch.setattr("lmdeck._incoming.disconnect.BODY_SECONDS", 60.0)
        monkeypatch.setattr("lmdeck._incoming.disconnect.DRAIN_SECONDS", 60.0)
        assert post(url, "/v1/chat/completions", b" " * 2000)[0] == 413


def test_an_allowed_host_name_is_accepted() -> None:
    def asked(fake: FakeLMStudio, host: str) -> int:
        port = urlsplit(fake.base_url).port
        request = f"GET /v1/models HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        return int(sent_raw(f"http://127.0.0.1:{port}", request).split()[1])

    with FakeLMStudio(allowed_hosts=["studio.example", ".inside.example"]) as fake:
        assert asked(fake, "studio.example") == asked(fake, "a.inside.example") == asked(fake, "LOCALHOST") == 200
        assert asked(fake, "gpu") == asked(fake, "192.0.2.1") == asked(fake, "evil.example") == 400
    with FakeLMStudio(host="0.0.0.0") as fake:
        assert asked(fake, "gpu") == asked(fake, "192.0.2.1") == asked(fake, "localhost") == 200
        assert asked(fake, "evil.example") == 400
    assert AllowedHosts.of(["*"]).allows("anything.example")


def test_the_bytes_of_an_exchange_are_those_that_came() -> None:
    odd = [bytes([200, 1, 2]), "ä".encode()]
    assert [piece.data for piece in exchange_of({}, *odd).pieces] == odd
    assert RecordedExchange(method="GET", path="/").body == b""
