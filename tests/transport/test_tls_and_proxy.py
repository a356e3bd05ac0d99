"""LM Studio behind HTTPS, and behind a proxy: verified, refused, and never telling a secret."""

from __future__ import annotations

import asyncio
import base64
import select
import socket
import socketserver
import ssl
import threading
from pathlib import Path
from typing import Self

import pytest

from asking import Way
from lmdeck import (
    AsyncLMStudio,
    ConfigurationError,
    ConnectionLostError,
    LMStudio,
    LMStudioError,
    MalformedStreamError,
    RequestTimeoutError,
    ServerUnreachableError,
    TransportError,
)
from loopback import CLOSE, HANG, SSE_HEAD, Loopback, chunk, head, hello, http_chunks, text_answer

PASSWORD = "pass%20word"
SECRET = "pass word"


def test_a_known_authority_is_trusted(way: Way, tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """With the authority's file the answer comes as over plain HTTP."""
    with Loopback(hello, tls=tls) as server:
        assert way.ask(server.url, tls_ca_file=certificate[0]).content == "Hello."


def test_an_unknown_authority_is_refused(way: Way, tls: ssl.SSLContext) -> None:
    """Nothing is sent to a server that cannot prove who it is, and trying again would not help."""
    with Loopback(hello, tls=tls) as server:
        with pytest.raises(TransportError) as caught:
            way.ask(server.url, api_token="sk-secret", retry_attempts=3)
        assert not server.requests
    assert "certificate" in caught.value.message
    assert "tls_ca_file" in caught.value.hint
    assert caught.value.attempts == 1


def test_verification_can_be_turned_off(way: Way, tls: ssl.SSLContext) -> None:
    """Who asks for it gets it, without a warning on every request."""
    with Loopback(hello, tls=tls) as server:
        assert way.ask(server.url, tls_verify=False).content == "Hello."


def test_a_client_certificate_is_shown(way: Way, tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """A server that asks for a certificate gets it; without one there is a typed error."""
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate[0])
    with Loopback(hello, tls=tls) as server:
        own = {"tls_client_cert": certificate[0], "tls_client_key": certificate[1]}
        assert way.ask(server.url, tls_ca_file=certificate[0], **own).content == "Hello."
        assert isinstance(way.fail(server.url, tls_ca_file=certificate[0]), TransportError)


def test_https_to_a_plain_port(way: Way) -> None:
    """LM Studio speaks plain HTTP: the hint says so."""
    with Loopback(greeting=[0.02, head(400), CLOSE]) as server:
        error = way.fail(server.url.replace("http://", "https://"))
    assert isinstance(error, TransportError)
    assert "http://" in error.hint


def test_plain_http_to_a_tls_port(way: Way, tls: ssl.SSLContext) -> None:
    """The reverse is told as what it looks like: no HTTP, or no answer."""
    with Loopback(hello, tls=tls) as server:
        error = way.fail(server.url.replace("https://", "http://"))
    assert isinstance(error, (MalformedStreamError, ConnectionLostError))


def test_a_handshake_that_never_ends(way: Way) -> None:
    """A server that takes the connection and then says nothing has not finished it: the connect limit counts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        error = way.fail(url, connect_timeout=0.2)
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("connect", 0.2)


def test_a_stream_over_tls_is_left_at_once(tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """Leaving works through TLS as well."""
    with (
        Loopback([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG], tls=tls) as server,
        LMStudio(base_url=server.url, tls_ca_file=str(certificate[0]), model="m") as client,
    ):
        with client.chat().user("Hi").stream() as stream:
            assert next(stream).content == "Hel"
        server.connection().wait_left()


@pytest.mark.parametrize("limits", [{"timeout": 0.2}, {"total_timeout": 0.3}], ids=str)
def test_silence_over_tls_is_reported(
    way: Way, tls: ssl.SSLContext, certificate: tuple[Path, Path], limits: dict[str, float]
) -> None:
    """The limits hold through TLS."""
    with Loopback([SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG], tls=tls) as server:
        error = way.fail(server.url, tls_ca_file=certificate[0], **limits)
    assert isinstance(error, RequestTimeoutError)


def test_a_missing_authority_file_is_a_setting(way: Way, tmp_path: Path) -> None:
    """A file that cannot be read is named as the setting that it is."""
    with pytest.raises(ConfigurationError, match="TLS file"):
        way.ask("https://127.0.0.1:1", tls_ca_file=tmp_path / "none.pem")


def test_a_proxy_is_used(way: Way) -> None:
    """The request goes to the proxy, with the whole address and the password that the setting holds."""
    with Loopback(hello) as proxy:
        host = proxy.url.removeprefix("http://")
        assert way.ask("http://lm.test:1234", proxy=f"http://user:{PASSWORD}@{host}").content == "Hello."
        request = proxy.requests[0]
    assert request.path == "http://lm.test:1234/v1/chat/completions"
    assert request.headers["host"] == "lm.test:1234"
    scheme, credentials = request.headers["proxy-authorization"].split()
    assert scheme == "Basic"
    assert base64.b64decode(credentials).decode() == f"user:{SECRET}"


def test_a_proxy_without_a_scheme_or_password(way: Way) -> None:
    """`host:port` will do."""
    with Loopback(hello) as proxy:
        assert way.ask("http://lm.test:1234", proxy=proxy.url.removeprefix("http://")).content == "Hello."
        assert "proxy-authorization" not in proxy.requests[0].headers


def test_the_environment_names_no_proxy(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is local: a company's proxy is not asked."""
    with Loopback(hello) as server, Loopback(text_answer("I am the proxy", 502)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert way.ask(server.url).content == "Hello."
        assert not proxy.connections


def hides_the_password(error: LMStudioError) -> None:
    seen, cause = [f"{error} {error!r} {error.__dict__}"], error.__cause__
    while cause is not None:
        seen.append(str(cause))
        cause = cause.__cause__
    for secret in (PASSWORD, SECRET, base64.b64encode(f"user:{SECRET}".encode()).decode()):
        assert secret not in " ".join(seen)


def test_a_proxy_that_is_not_there(way: Way) -> None:
    """The proxy is named as what failed, and its password is not shown."""
    with Loopback(hello) as gone:
        host = gone.url.removeprefix("http://")
    error = way.fail("http://lm.test:1234", proxy=f"http://user:{PASSWORD}@{host}")
    assert isinstance(error, ServerUnreachableError)
    assert "proxy" in error.message.lower() + error.hint
    hides_the_password(error)


@pytest.mark.parametrize("url", ["http://lm.test:1234", "https://lm.test:1234"])
def test_a_proxy_that_refuses(way: Way, url: str) -> None:
    """A proxy that wants another password is an error, for plain requests and for tunnels."""
    with Loopback([*text_answer("who are you?", 407, proxy_authenticate="Basic"), CLOSE]) as proxy:
        host = proxy.url.removeprefix("http://")
        error = way.fail(url, proxy=f"http://user:{PASSWORD}@{host}")
        assert proxy.requests[0].method == ("CONNECT" if url.startswith("https") else "POST")
    assert isinstance(error, ServerUnreachableError) if url.startswith("https") else error.status == 407
    hides_the_password(error)


def test_a_tunnel_leads_to_a_server_behind_https(way: Way, tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
    """The proxy is asked for the server's address and passes bytes; the request names the server, without the password."""
    with Loopback(hello, tls=tls) as server, Tunnel() as tunnel:
        settings = {"proxy": f"http://user:{PASSWORD}@{tunnel.address}", "tls_ca_file": certificate[0]}
        assert way.ask(server.url, **settings).content == "Hello."
        host = server.url.removeprefix("https://")
        assert server.requests[0].headers["host"] == host
        assert "proxy-authorization" not in server.requests[0].headers
        assert tunnel.asked[0].startswith(f"CONNECT {host} HTTP/1.")
        assert base64.b64encode(f"user:{SECRET}".encode()).decode() in tunnel.asked[0]


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy that connects to what it is asked for; `address` is its own, `asked` the heads that it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _TunnelEnd)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _TunnelEnd(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(1)
        self.server.asked.append(head.decode())
        host, _, port = head.split()[1].decode().partition(":")
        with socket.create_connection((host, int(port))) as upstream:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            others = {self.request: upstream, upstream: self.request}
            while True:
                for ready in select.select(list(others), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    others[ready].sendall(data)


def test_settings_never_show_the_password() -> None:
    """No representation shows it, not even a client's."""
    for client in (LMStudio(proxy=f"http://user:{PASSWORD}@p:1"), AsyncLMStudio(proxy=f"http://user:{PASSWORD}@p:1")):
        assert PASSWORD not in f"{client!r} {client.settings!r}"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_image_is_not_fetched_from_an_unknown_authority(is_async: bool, tls: ssl.SSLContext) -> None:
    """`tls_verify=False` is for LM Studio alone: the web is always verified, and nothing is asked."""

    async def fetch(url: str) -> None:
        async with AsyncLMStudio(base_url=url, tls_verify=False) as client:
            await client.fetch_image(f"{url}/cat.png", allow_private=True)

    def fetch_sync(url: str) -> None:
        with LMStudio(base_url=url, tls_verify=False) as client:
            client.fetch_image(f"{url}/cat.png", allow_private=True)

    with Loopback(hello, tls=tls) as server:
        with pytest.raises(TransportError, match="TLS failed") as caught:
            _ = asyncio.run(fetch(server.url)) if is_async else fetch_sync(server.url)
        assert server.requests == []
    assert "image's address" in caught.value.hint
