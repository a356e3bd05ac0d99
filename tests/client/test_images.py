"""Images from the web, whose host is no LM Studio, and images of kinds that LM Studio does not take."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
from ipaddress import ip_address
from typing import Any

import pytest
from PIL import Image

import lmdeck
from asking import alm, lm
from lmdeck import ConfigurationError, InvalidRequestError, LMStudioError, RequestTimeoutError, ServerUnreachableError
from lmdeck._requests import image_conversion
from lmdeck._requests.image_urls import AddressGuard, redirected
from lmdeck.testing import FakeLMStudio
from loopback import HANG, SSE_HEAD, Answer, Loopback, head, http_chunks, json_answer, text_answer
from ports import free_port

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def fetch(url: str, *, is_async: bool = False, allow_private: bool = True, **limits: Any) -> bytes:
    async def ask() -> bytes:
        async with alm("http://127.0.0.1:1", api_token="sesame") as client:
            return await client.fetch_image(url, allow_private=allow_private, **limits)

    if is_async:
        return asyncio.run(ask())
    with lm("http://127.0.0.1:1", api_token="sesame") as client:
        return client.fetch_image(url, allow_private=allow_private, **limits)


def picture(data: bytes = PNG, kind: str = "image/png", **headers: object) -> Answer:
    return text_answer(data, content_type=kind, **headers)


def redirect(to: str, status: int = 302) -> Answer:
    return [head(status, location=to, content_length=0)]


# --- fetching -------------------------------------------------------------------------------------------------------------


@BOTH
def test_an_image_is_fetched(is_async: bool) -> None:
    """Its bytes come back, and nothing of LM Studio's goes out."""
    with Loopback(routes={"/cat.png?size=1": picture()}) as web:
        assert fetch(f"{web.url}/cat.png?size=1#top", is_async=is_async) == PNG
        (request,) = web.requests
    assert request.method == "GET"
    assert "authorization" not in request.headers
    assert "sesame" not in str(request.headers)


@BOTH
def test_it_reaches_the_model(hello: FakeLMStudio, is_async: bool) -> None:
    """`images=[lm.fetch_image(url)]` is all there is to it."""

    async def ask(url: str, image: str) -> None:
        async with alm(url) as client:
            found = await client.fetch_image(image, allow_private=True)
            await client.chat().user("What is it?", images=[found]).send()

    with Loopback(picture()) as web:
        if is_async:
            asyncio.run(ask(hello.base_url, f"{web.url}/a.png"))
        else:
            with lm(hello.base_url) as client:
                found = client.fetch_image(f"{web.url}/a.png", allow_private=True)
                client.chat().user("What is it?", images=[found]).send()
    part = hello.requests[0].body["messages"][0]["content"][1]
    assert part["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(PNG).decode()


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, is_async: bool) -> None:
    """Relative redirects and redirects to other servers are followed."""
    with Loopback(routes={"/b": picture()}) as other:
        routes = {"/x/a": redirect("../y", status), "/y": redirect(f"{other.url}/b", status)}
        with Loopback(routes=routes) as web:
            assert fetch(f"{web.url}/x/a", is_async=is_async) == PNG


@BOTH
def test_redirects_end(is_async: bool) -> None:
    """A request fails after five redirects, and at one that leads nowhere."""
    with Loopback(redirect("/again")) as web:
        with pytest.raises(InvalidRequestError, match="redirects more than 5 times"):
            fetch(f"{web.url}/", is_async=is_async)
        assert len(web.requests) == 6
    for nowhere in ("ftp://host/a", "data:image/png;base64,aGk=", "http://me:secret@host/", "http://[::1"):
        with Loopback(redirect(nowhere)) as web, pytest.raises(ConfigurationError) as caught:
            fetch(f"{web.url}/", is_async=is_async)
        assert "secret" not in str(caught.value)


@BOTH
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (picture(kind="text/html; charset=utf-8"), "is text/html, not an image"),
        (picture(b"<svg/>", "image/svg+xml"), "not a PNG, JPEG, WebP, GIF or BMP"),
        (picture(b"", "image/png"), "not a PNG"),
        (picture(PNG * 100), "larger than 500 bytes"),
        ([SSE_HEAD.replace(b"text/event-stream", b"image/png"), *[http_chunks(PNG * 20, last=False)] * 3], "larger than 500"),
        ([head(content_type="image/png", content_length=10**12)], "larger than 500"),
        (text_answer("gone", status=404), "answered 404"),
        (text_answer("", status=204), "answered 204"),
        (json_answer({"error": "no"}, 500), "answered 500"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(answer: Answer, words: str, is_async: bool) -> None:
    """Type, size and first bytes are checked; the message keeps the address's query to itself."""
    with Loopback(answer) as web, pytest.raises(InvalidRequestError, match=words) as caught:
        fetch(f"{web.url}/a?key=S3cr3t", is_async=is_async, max_bytes=500)
    assert caught.value.hint
    assert "S3cr3t" not in str(caught.value)


@BOTH
@pytest.mark.parametrize("kind", ["", "application/octet-stream", "IMAGE/PNG", "image/webp"])
def test_the_bytes_say_what_an_image_is(kind: str, is_async: bool) -> None:
    """A server that does not know, or is wrong, is no hindrance."""
    with Loopback(picture(kind=kind)) as web:
        assert fetch(f"{web.url}/a", is_async=is_async) == PNG


@BOTH
def test_a_server_that_is_not_there_or_silent(is_async: bool) -> None:
    """The hint is about the image, not about LM Studio."""
    port = free_port()
    with pytest.raises(ServerUnreachableError) as caught:
        fetch(f"http://127.0.0.1:{port}/", is_async=is_async)
    assert "image's address" in caught.value.hint
    with Loopback([HANG]) as web, pytest.raises(RequestTimeoutError):
        fetch(f"{web.url}/", is_async=is_async, total_timeout=0.2)
    drip = [head(content_type="image/png"), *[step for byte in PNG * 9 for step in (bytes([byte]), 0.05)]]
    with Loopback(drip) as web, pytest.raises(RequestTimeoutError):
        fetch(f"{web.url}/", is_async=is_async, total_timeout=0.3)


# --- private addresses ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"])
def test_this_machine_is_not_asked(name: str, is_async: bool) -> None:
    """It is refused by its number, by its name and in every other spelling."""
    with Loopback(picture()) as web:
        with pytest.raises(LMStudioError) as caught:
            fetch(f"http://{name}:{web.port}/", is_async=is_async, allow_private=False)
        assert web.requests == []
    if name != "127.1":  # which is no address in the eyes of every resolver
        assert isinstance(caught.value, InvalidRequestError)
        assert "allow_private" in caught.value.hint


@BOTH
def test_a_redirect_into_a_private_network_is_refused(is_async: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public address may lead anywhere, so each step is checked: here only this test's own server counts as public."""
    with Loopback(redirect("http://169.254.169.254/latest/meta-data")) as web:
        monkeypatch.setattr("lmdeck._requests.image_urls._is_public", lambda address: address == "127.0.0.1")
        with pytest.raises(InvalidRequestError, match=r"leads to 169\.254\.169\.254"):
            fetch(f"{web.url}/", is_async=is_async, allow_private=False)


@BOTH
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]], ids=["private", "elsewhere later"])
def test_a_private_address_behind_a_name_is_never_connected_to(
    addresses: list[str], is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an address that was checked is connected to: a port scan learns nothing, and a name may change as it likes.

    Here 127.0.0.2, on which nothing listens, counts as public.
    """
    asked = iter([*addresses, *["127.0.0.1"] * 20])

    def look_up(host: str, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (next(asked), port))]

    with Loopback(picture()) as web:
        monkeypatch.setattr(
            "lmdeck._requests.image_urls._is_public", lambda address: str(ip_address(address)) == "127.0.0.2"
        )
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with pytest.raises(LMStudioError) as caught:
            fetch(f"http://pictures.example:{web.port}/", is_async=is_async, allow_private=False)
        assert web.connections == []
    assert isinstance(caught.value, InvalidRequestError if len(addresses) == 1 else ServerUnreachableError)


@BOTH
def test_a_redirect_gives_tls_up_in_no_spelling(is_async: bool) -> None:
    """Schemes are written in any case (RFC 3986, 3.1)."""
    with Loopback(picture()) as plain:
        for scheme in ("http", "HTTP", "hTtP"):
            with pytest.raises(InvalidRequestError, match="from https:// to http://"):
                redirected(
                    "https://pictures.example/a",
                    f"{scheme}://127.0.0.1:{plain.port}/",
                    0,
                    AddressGuard(allow_private=True),
                )
        assert fetch(plain.url.replace("http", "HTTP"), is_async=is_async) == PNG


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.255.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "224.0.0.1",
        "255.255.255.255", "::", "::1", "fc00::1", "fe80::1", "fe80::1%1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "2001:0:0:0:0:0:f5ff:fffe", "::127.0.0.1", "::10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b:1::a00:1",
        "64:ff9b:1:ffff::101:101", "fec0::1", "3fff::1", "5f00::1", "2606:4700::5efe:192.168.0.1",
        "2606:4700::200:5efe:10.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Loopback, private, link-local, shared and multicast addresses are not public, nor are IPv4 ones inside IPv6 ones."""
    guard = AddressGuard()
    with pytest.raises(OSError, match="public"):
        guard(address)
    assert guard.refused == address
    AddressGuard(allow_private=True)(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are_public(address: str) -> None:
    """They may be asked."""
    AddressGuard()(address)


@pytest.mark.parametrize(
    "url", ["", "cat.png", "file:///etc/passwd", "ftp://h/a", "http://", "http://me@h/", "http://h:99999/", "http://h/a b", "http://h/ü"]
)  # fmt: skip
def test_what_is_no_address_to_fetch(url: str) -> None:
    """Nothing is requested."""
    with pytest.raises(ConfigurationError):
        fetch(url)
    with pytest.raises(ConfigurationError):
        fetch("http://127.0.0.1:1/", max_bytes=0)


def test_the_facade_fetches_too() -> None:
    """`lmdeck.fetch_image` needs no client."""
    with Loopback(picture()) as web:
        assert lmdeck.fetch_image(f"{web.url}/a.png", allow_private=True) == PNG


# --- other kinds ------------------------------------------------------------------------------------------------------------


def drawn(kind: str, mode: str = "RGB", size: tuple[int, int] = (3, 2)) -> bytes:
    """Draw an image of a kind."""
    written = io.BytesIO()
    Image.new(mode, size, "red" if mode != "P" else 1).save(written, kind.upper())
    return written.getvalue()


@BOTH
@pytest.mark.parametrize(
    ("kind", "mode"), [("webp", "RGB"), ("webp", "RGBA"), ("gif", "P"), ("bmp", "RGB"), ("bmp", "1")]
)
def test_other_kinds_are_sent_as_png(hello: FakeLMStudio, kind: str, mode: str, is_async: bool) -> None:
    """The size stays, and the reply tells."""

    async def ask(url: str) -> lmdeck.Reply:
        async with alm(url) as client:
            return await client.chat().user("What?", images=[drawn(kind, mode)]).send()

    if is_async:
        reply = asyncio.run(ask(hello.base_url))
    else:
        with lm(hello.base_url) as client:
            reply = client.chat().user("What?", images=[drawn(kind, mode)]).send()
    url = hello.requests[0].body["messages"][0]["content"][1]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert (sent.format, sent.size) == ("PNG", (3, 2))
    (problem,) = reply.problems
    assert problem.code == "adjusted"
    assert kind in problem.detail.lower()


def test_they_are_in_a_conversation_too(fake: FakeLMStudio) -> None:
    """`/api/v1/chat` takes a data URI as well."""
    fake.reply("A cat.")
    with lm(fake.base_url) as client:
        reply = client.conversation().send("What?", images=[drawn("webp")])
    assert fake.requests[0].body["input"][1]["data_url"].startswith("data:image/png;base64,iVBOR")
    assert [problem.code for problem in reply.problems] == ["adjusted"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "The WebP image cannot be decoded"),
        (b"GIF89a", "The GIF image cannot be decoded"),
        (drawn("webp")[:-20], "WebP"),
        (b"BM" + bytes(60), "BMP"),
    ],
)
def test_an_image_that_cannot_be_decoded_is_reported(data: bytes, words: str) -> None:
    """The error is raised before anything is sent."""
    with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match=words):
        client.chat().user("What?", images=[data]).send()


def test_an_image_of_too_many_pixels_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file may hold a huge picture."""
    monkeypatch.setattr(image_conversion, "MAX_PIXELS", 5)
    with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match="more than 5 pixels"):
        client.chat().user("What?", images=[drawn("webp")]).send()
    huge = bytearray(drawn("gif", "P"))
    huge[6:10] = b"\xff\xff\xff\xff"  # width and height in its head
    with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match="pixels"):
        client.chat().user("What?", images=[bytes(huge)]).send()


def test_without_pillow_other_kinds_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the extra."""
    monkeypatch.setattr("lmdeck._requests.images.can_convert", lambda: False)
    with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match="is WebP") as caught:
        client.chat().user("What?", images=[drawn("webp")])
    assert "lmdeck[images]" in caught.value.hint
    assert isinstance(caught.value, LMStudioError)
