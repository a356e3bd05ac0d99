"""Clients that misbehave: half requests, huge headers and bodies, smuggling, slow readers. Others are served meanwhile."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest

from gateways import MODEL, PATIENCE, Answer, GatewayProcess, config_of, gateway
from lmdeck.errors import ConfigurationError
from lmdeck.gateway import Config
from lmdeck.gateway.start import check_exposure
from lmdeck.testing import FakeLMStudio
from loopback import read_all

LIMITS = """
[limits]
body_bytes = 100_000
header_bytes = 8_000
header_seconds = 0.5
body_seconds = 0.7
write_seconds = 1.0
"""
CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).encode()
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLMStudio]:
    with FakeLMStudio(strict=False) as server:
        yield server


@pytest.fixture(scope="module")
def running(fake: FakeLMStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with gateway(tmp_path_factory.mktemp("gateway"), config_of([fake], LIMITS)) as process:
        yield process


@pytest.fixture(autouse=True)
def others_are_served(running: GatewayProcess) -> Iterator[None]:
    yield
    assert running.chat("Are you there?").status == 200


def answer_to(running: GatewayProcess, data: bytes) -> bytes:
    """Send bytes, and return everything up to the end of the connection."""
    with running.connect() as client:
        client.sendall(data)
        return read_all(client)


@pytest.mark.parametrize("start", [b"", b"POS", HEAD, HEAD + b"Content-Length: 10\r\nX-Slow", HEALTH + b"POS"])
def test_an_incomplete_head_is_refused(running: GatewayProcess, start: bytes) -> None:
    answer = answer_to(running, start)
    assert answer.startswith(b"HTTP/1.1 200 ") == start.startswith(b"GET")
    assert answer.count(b"HTTP/1.1 408 ") == bool(start)
    assert not start or b"limits.header_seconds" in answer


def test_a_connection_stays_open_between_requests(running: GatewayProcess) -> None:
    """It stays open longer than pools of clients and proxies keep theirs, which would lose a request."""
    with running.connect() as client:
        for pause in (5.5, 0):
            client.sendall(HEALTH)
            response = HTTPResponse(client)
            response.begin()
            assert (response.status, response.read()) == (200, b'{"status":"ok"}')
            time.sleep(pause)


def test_an_incomplete_body_is_refused(running: GatewayProcess) -> None:
    """The connection ends as well: what came later would be the rest of the body."""
    answer = answer_to(running, HEAD + b"Content-Length: 1000\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"limits.body_seconds" in answer


def test_a_client_that_offers_http_2_is_answered(running: GatewayProcess) -> None:
    """Java's client offers it with each first request; the body belongs to the request all the same."""
    offer = b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    answer = answer_to(running, HEAD + offer + b"Content-Length: %d\r\n\r\n%s" % (len(CHAT), CHAT))
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("count", [1, 400])
def test_huge_headers_are_refused(running: GatewayProcess, count: int) -> None:
    """They are refused in one line or in many, complete or not."""
    fields = b"".join(b"X-Filler-%d: %s\r\n" % (n, b"x" * (10_000 // count)) for n in range(count))
    for end in (b"Content-Length: 0\r\n\r\n", b""):
        answer = answer_to(running, HEAD + fields + end)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"limits.header_bytes" in answer
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("announced", [True, False])
def test_a_large_body_is_refused(running: GatewayProcess, announced: bool) -> None:
    body = b"x" * 200_000
    data = (
        HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
        if announced
        else HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(body), body)
    )
    with running.connect() as client:
        client.sendall(data)
        answer = b""
        while b"}}" not in answer:
            answer += client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"limits.body_bytes" in answer


SMUGGLING = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "signed length": b"Content-Length: +5\r\n\r\nabcde",
    "two codings": b"Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "folded coding": b"Transfer-Encoding:\r\n chunked, identity\r\n\r\n0\r\n\r\n",
    "blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "wrong chunk size": b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "null byte": b"X-Null: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "bare line end": b"X-One: a\rContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_smuggling_is_refused(fake: FakeLMStudio, running: GatewayProcess, case: str) -> None:
    """Requests that two servers could read differently are not valid, and no second request hides in them."""
    before = len(fake.requests)
    answer = answer_to(running, HEAD + SMUGGLING[case])
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 ", b"HTTP/1.1 501 ")), answer
    assert not any("hidden" in request.path for request in fake.requests[before:])


def test_pipelined_requests_are_separate(running: GatewayProcess) -> None:
    whole = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(CHAT), CHAT)
    last = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(CHAT), CHAT)
    assert answer_to(running, whole + last).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("keeps", [b"", b"Connection: keep-alive\r\n"])
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_an_answer_to_http_1_0_ends_with_its_connection(running: GatewayProcess, method: str, keeps: bytes) -> None:
    """A client of HTTP/1.0 does not know chunks (RFC 9112, section 6.1)."""
    body = json.dumps({**json.loads(CHAT), "stream": True}).encode() if method == "POST" else b""
    path = b"/v1/chat/completions" if body else b"/v1/models"
    head = b"%s %s HTTP/1.0\r\nContent-Type: application/json\r\n" % (method.encode(), path) + keeps
    answer = answer_to(running, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in first.lower()
    assert b"transfer-encoding" not in first.lower()
    if method == "HEAD":
        assert rest == b""
    elif method == "GET":
        assert json.loads(rest)["data"]
    else:
        events = [event for event in rest.removesuffix(b"\n\n").split(b"\n\n") if event.startswith(b"data: ")]
        assert events[-1] == b"data: [DONE]"
        assert all(json.loads(event.removeprefix(b"data: ")) for event in events[:-1])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"null", b'{"model": 1}', b'{"messages": "x"}', b"\xff\xfe", b"[" * 50_000]
)
def test_a_wrong_body_is_an_error_of_the_client(running: GatewayProcess, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/completions"):
        answer = running.request("POST", path, body)
        assert 400 <= answer.status < 500, (path, answer.body)
        assert answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/gateway/status/", "//gateway/status", "/v1/../gateway/status", "/%67ateway/status", "/v1/%2e%2e/Gateway/Status"],
)
def test_no_spelling_of_a_path_gets_around_its_checks(fake: FakeLMStudio, running: GatewayProcess, path: str) -> None:
    """Hosts do not mind a slash more, or capitals."""
    before = len(fake.requests)
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n"
    assert answer_to(running, head.encode()).startswith(b"HTTP/1.1 403 ")
    assert not any("ateway" in request.path.lower() for request in fake.requests[before:])


def test_an_answer_is_repaired_however_its_path_is_spelt(fake: FakeLMStudio, running: GatewayProcess) -> None:
    for path in ("/v1/chat/completions/", "/V1/Chat/completions", "//v1/chat/completions", "/v1%2Fchat/completions"):
        assert "lmdeck" in running.request("POST", path, CHAT).json, path


def test_methods_of_browsers_and_load_balancers_do_not_reach_a_host(
    fake: FakeLMStudio, running: GatewayProcess
) -> None:
    before = len(fake.requests)
    for path in ("/health", "/v1/models", "/gateway/status"):
        answer = running.request("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    asked = running.request("OPTIONS", "/v1/chat/completions", Origin="https://evil.example")
    assert "access-control-allow-origin" not in asked.headers
    assert not any(request.method in {"HEAD", "OPTIONS"} for request in fake.requests[before:])


def test_text_that_other_languages_cut_or_mark_is_read(fake: FakeLMStudio, running: GatewayProcess) -> None:
    """Half of an emoji, as JavaScript leaves it, and a byte order mark, as PowerShell writes it."""
    cut = CHAT.replace(b"Hi", b"Hi \\ud83d")
    for body in (cut, b"\xef\xbb\xbf" + CHAT):
        answer = running.request("POST", "/v1/chat/completions", body)
        assert answer.status == 200, answer.body
    packed = running.request("POST", "/v1/chat/completions", CHAT, **{"Content-Encoding": "gzip"})
    assert (packed.status, "Content-Encoding" in packed.json["error"]["message"]) == (415, True)


def test_a_slow_reader_is_disconnected_and_blocks_no_other(fake: FakeLMStudio, running: GatewayProcess) -> None:
    """What it does not read is bounded, and its slot is free again."""
    words = "word " * 400_000
    fake.when(lambda request: "long" in request.last_user).reply(words, tokens_per_second=None)
    body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "long"}]}).encode()
    with running.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        running.wait_until(lambda status: status["hosts"][0]["running"] == 1)
        before = memory_of(running)
        assert running.chat().status == 200
        running.wait_until(lambda status: status["hosts"][0]["running"] == 0)
        assert memory_of(running) - before < 20_000
    fake.reset()


def memory_of(running: GatewayProcess) -> int:
    """Return the resident memory in KB, where the system tells it."""
    file = Path(f"/proc/{running.process.pid}/status")
    if not file.exists():
        return 0
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("VmRSS"))


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"PROPFIND"])
def test_a_method_without_use_does_not_reach_a_host(fake: FakeLMStudio, running: GatewayProcess, method: bytes) -> None:
    """A host would answer `TRACE` with the request, which has its own token."""
    before = len(fake.requests)
    answer = answer_to(running, method + b" /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405"), answer
    assert not [each for each in fake.requests[before:] if each.path == "/v1/x"]


def test_pages_of_other_sites_are_refused(running: GatewayProcess) -> None:
    assert running.chat(headers={"Origin": "https://evil.example"}).status == 403
    assert running.chat(headers={"Host": "evil.example"}).status == 400
    assert running.request("POST", "/v1/chat/completions", CHAT, **{"Content-Type": "text/plain"}).status == 415
    assert running.get("/gateway/status", **{"X-Forwarded-For": "10.0.0.1"}).status == 403


def test_websockets_are_refused_with_a_reason(running: GatewayProcess) -> None:
    answer = answer_to(
        running,
        b"GET /v1/llm HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"HTTP only" in answer


# --- the end of a gateway ---


STREAMED = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/v1/responses": "input",
    "/v1/completions": "prompt",
}


def stream_lines(running: GatewayProcess, text: str, path: str = "/v1/chat/completions") -> Iterator[bytes]:
    asked = text if STREAMED[path] == "prompt" else [{"role": "user", "content": text}]
    body = {"model": MODEL, "stream": True, "max_tokens": 1000, STREAMED[path]: asked}
    answer = running.pool.request("POST", f"{running.url}{path}", json=body, preload_content=False, timeout=PATIENCE)
    assert answer.status == 200
    yield from answer


def test_streams_end_before_the_gateway_does(tmp_path: Path) -> None:
    with FakeLMStudio(strict=False, tokens_per_second=20) as fake, gateway(tmp_path, config_of([fake])) as running:
        lines = stream_lines(running, "word " * 20)
        first = next(lines)
        running.process.send_signal(signal.SIGTERM)
        rest = b"".join([first, *lines])
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert running.process.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_streams_that_take_too_long_end_with_an_error(tmp_path: Path) -> None:
    """The error is the next event of the stream in every format."""
    text = "[server]\nshutdown_seconds = 0.3\n"
    with FakeLMStudio(tokens_per_second=5) as fake, gateway(tmp_path, config_of([fake], text)) as running:
        fake.when(lambda _: True).reply("word " * 500)
        open_streams = {path: stream_lines(running, "Go on", path) for path in STREAMED}
        begun = {path: next(lines) for path, lines in open_streams.items()}
        running.process.send_signal(signal.SIGTERM)
        streams = {
            path: Answer(200, {}, b"".join([begun[path], *lines])).events for path, lines in open_streams.items()
        }
        for path, events in streams.items():
            assert "shutting down" in json.dumps(events[-1].get("error")), (path, events)
        kinds = [event["type"] for event in streams["/v1/responses"]]
        assert kinds.count("response.created") == 1
        assert kinds[-2:] == ["response.failed", "error"]
        assert [event["sequence_number"] for event in streams["/v1/responses"]] == list(range(len(kinds)))
        assert running.process.wait(PATIENCE) in (0, -signal.SIGTERM)


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """They end however the parent ends; otherwise they would hold the port."""
    children = Path("/proc/self/task")
    if not children.exists():
        pytest.skip("the system does not list the children of a process")
    with FakeLMStudio(strict=False) as fake, gateway(tmp_path, config_of([fake]), "--workers", "2") as running:
        assert running.chat().status == 200
        workers = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        running.process.kill()
        limit = time.monotonic() + PATIENCE
        while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
            assert time.monotonic() < limit
            time.sleep(0.05)


# --- wrong configurations ---


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[hosts]]\nurl = 'http://x'\nwieght = 2", "line 3: hosts[0].wieght: there is no such setting"),
        ("[[hosts]]\nname = 'x'", "line 1: hosts[0].url: it is required"),
        ("[[hosts]]\nurl = 'http://x'\nweight = 'a'", "line 3: hosts[0].weight: expected `float`, got `str`"),
        (
            "[[hosts]]\nurl = 'http://x'\n[queue]\nmax_wait = 0",
            "line 4: queue.max_wait: it must be more than 0 seconds",
        ),
        (
            "[[hosts]]\nurl = 'http://x'\ntoken_env = 'NOT_SET_ANYWHERE'",
            "line 3: hosts[0].token_env: the environment variable NOT_SET_ANYWHERE",
        ),
        ("[[hosts]]\nurl = 'http://x'\n[[hosts]]\nurl = 'http://x'", "hosts: two hosts have the name 'x'"),
        ("[[hosts]]\nurl = 'http://'", "base_url"),
        ("[queue\nmax_wait = 0", "line 1"),
        ("hosts = []", "line 1: hosts: there must be at least one"),
        ("[sticky]\nby = ['cookie']", "line 2: sticky.by: 'cookie' is not"),
        ("[profiles.m]\ncontext_length = -1", "profiles.m: context_length must be a positive integer"),
        ("[server]\nhost = '0.0.0.0'", "without keys"),
    ],
)
def test_a_wrong_configuration_is_named_by_setting_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_exposure(Config.parse(text))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_gateway_with_a_wrong_configuration_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[[hosts]]\nurl = 'http://x'\nwieght = 2")
    command = [sys.executable, "-m", "lmdeck", "gateway", "serve", "--config", str(file), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "gateway.toml, line 3: hosts[0].wieght" in " ".join(done.stderr.split())
    assert "`weight`" in done.stderr
