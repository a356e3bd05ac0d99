"""The transports under httpx2 and httpx: time limits, retries, early ends, threads, loops and forks."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import ssl
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import openai
import pytest

import lmdeck.contrib.httpx
import lmdeck.contrib.httpx2
from asking import last_asked, nothing_left_behind, until
from lmdeck import ConfigurationError
from lmdeck.contrib.asgi import RepairProxy
from lmdeck.contrib.openai import OpenAI, async_http_client, http_client
from lmdeck.testing import FakeLMStudio
from loopback import HANG, PATIENCE, SSE_HEAD, Loopback, chunk, hello, http_chunks, text_answer

MODEL = "qwen2.5-7b-instruct"
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]
BODY: Any = {"model": MODEL, "messages": HELLO}
LIBRARIES = pytest.mark.parametrize(
    ("library", "transports"), [(httpx2, lmdeck.contrib.httpx2), (httpx, lmdeck.contrib.httpx)], ids=["httpx2", "httpx"]
)


@pytest.fixture
def fake() -> Iterator[FakeLMStudio]:
    with nothing_left_behind(), FakeLMStudio(seed=0) as server:
        yield server


@pytest.fixture
def echo() -> Iterator[FakeLMStudio]:
    """A fake that repeats what it is asked."""
    with nothing_left_behind(), FakeLMStudio(seed=0, strict=False) as server:
        yield server


def client_of(fake: FakeLMStudio, **options: Any) -> openai.OpenAI:
    settings = options.pop("settings", {})
    return openai.OpenAI(base_url=f"{fake.base_url}/v1", api_key="x", http_client=http_client(**settings), **options)


def async_client_of(fake: FakeLMStudio, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{fake.base_url}/v1", api_key="x", http_client=async_http_client(), **options)


@LIBRARIES
def test_both_libraries_get_the_repaired_answer(
    fake: FakeLMStudio, library: ModuleType, transports: ModuleType
) -> None:
    """Whole and streamed answers are repaired, sync and async."""
    for _ in range(4):
        fake.reply("Hello")
    url = f"{fake.base_url}/v1/chat/completions"
    with library.Client(transport=transports.RepairTransport()) as client:
        assert client.post(url, json=BODY).json()["choices"][0]["message"]["content"] == "Hello"
        with client.stream("POST", url, json={**BODY, "stream": True}) as response:
            assert "[DONE]" in "".join(response.iter_text())

    async def ask() -> None:
        async with library.AsyncClient(transport=transports.AsyncRepairTransport()) as client:
            answer = await client.post(url, json=BODY)
            assert answer.json()["choices"][0]["message"]["content"] == "Hello"
            async with client.stream("POST", url, json={**BODY, "stream": True}) as response:
                assert [line async for line in response.aiter_lines()][-2] == "data: [DONE]"

    asyncio.run(ask())


def asked(library: ModuleType, transports: ModuleType, url: str, **settings: Any) -> list[Any]:
    """Ask with both transports, made with these settings, and return the two responses."""

    async def ask() -> Any:
        async with library.AsyncClient(transport=transports.AsyncRepairTransport(**settings)) as client:
            return await client.post(f"{url}/v1/chat/completions", json=BODY)

    with library.Client(transport=transports.RepairTransport(**settings)) as client:
        return [client.post(f"{url}/v1/chat/completions", json=BODY), asyncio.run(ask())]


def content_of(response: Any) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@LIBRARIES
def test_tls_settings_hold(
    library: ModuleType, transports: ModuleType, tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    """The authority, the client's own certificate, and none at all: the client outside has no say in what is verified."""
    authority = {"tls_ca_file": str(certificate[0])}
    with Loopback(hello, tls=tls) as server:
        for settings in (authority, {"tls_verify": False}):
            assert [content_of(each) for each in asked(library, transports, server.url, **settings)] == ["Hello."] * 2
        count = len(server.requests)
        for response in asked(library, transports, server.url, retry_attempts=1):
            assert response.status_code >= 400
            assert "tls_ca_file" in response.json()["error"]["message"]
        assert len(server.requests) == count
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(certificate[0])
    shown = {"tls_client_cert": str(certificate[0]), "tls_client_key": str(certificate[1])}
    with Loopback(hello, tls=tls) as server:
        assert [content_of(each) for each in asked(library, transports, server.url, **authority, **shown)] == [
            "Hello."
        ] * 2
        refused = asked(library, transports, server.url, **authority, retry_attempts=1)
        assert all(response.status_code >= 400 for response in refused)


@LIBRARIES
def test_the_proxy_of_the_settings_is_used(
    library: ModuleType, transports: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its password and the request's address; the environment's proxy is ignored, and no error shows the password."""
    with Loopback(hello) as proxy, Loopback(text_answer("I am the proxy", 502)) as other:
        monkeypatch.setenv("HTTP_PROXY", other.url)
        host = proxy.url.removeprefix("http://")
        settings = {"proxy": f"http://user:secret-word@{host}"}
        assert [content_of(each) for each in asked(library, transports, "http://lm.test:1234", **settings)] == [
            "Hello."
        ] * 2
        for request in proxy.requests:
            assert request.path == "http://lm.test:1234/v1/chat/completions"
            assert request.headers["host"] == "lm.test:1234"
            assert base64.b64decode(request.headers["proxy-authorization"].split()[1]) == b"user:secret-word"
        assert not other.connections
    for response in asked(library, transports, "http://lm.test:1234", **settings, retry_attempts=1):
        assert response.status_code >= 400
        assert "proxy" in response.text.lower()
        assert "secret-word" not in f"{response.text}{response.headers}"


@LIBRARIES
def test_a_header_adds_no_other(library: ModuleType, transports: ModuleType) -> None:
    """A value of several lines would be a request of its own: it is an error, and nothing is sent."""
    with Loopback(hello) as server, library.Client(transport=transports.RepairTransport(retry_attempts=1)) as client:
        for value in ("a\r\nX-Other: b", "a\nX-Other: b", "a\r\n\r\nGET /", "a\rb", "a\0b"):
            response = client.post(f"{server.url}/v1/chat/completions", json=BODY, headers={"X-Mine": value})
            assert response.status_code >= 400
        assert not server.requests


@LIBRARIES
def test_a_time_limit_of_the_client_raises_its_own_exception(library: ModuleType, transports: ModuleType) -> None:
    """The limit applies before the answer and within it."""
    silent, begun = [HANG], [SSE_HEAD, http_chunks(chunk("Hel"), last=False), HANG]
    with Loopback(silent, begun) as server:
        url = f"{server.url}/v1/chat/completions"
        with library.Client(transport=transports.RepairTransport(), timeout=0.3) as client:
            with pytest.raises(library.ReadTimeout):
                client.post(url, json=BODY)
            with (
                pytest.raises(library.ReadTimeout),
                client.stream("POST", url, json={**BODY, "stream": True}) as answer,
            ):
                answer.read()

    async def ask(url: str) -> None:
        async with library.AsyncClient(transport=transports.AsyncRepairTransport(), timeout=0.3) as client:
            with pytest.raises(library.ReadTimeout):
                await client.post(url, json=BODY)

    with Loopback(silent) as server:
        asyncio.run(ask(f"{server.url}/v1/chat/completions"))


def test_openais_time_limit_is_its_timeout_error(echo: FakeLMStudio) -> None:
    echo.fail_always("hang")
    with client_of(echo, max_retries=1) as client, pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(**BODY, timeout=0.3)
    until(lambda: len(echo.requests) == 2)  # OpenAI's own retry of its own limit; lmdeck adds none


def test_lmdecks_time_limit_is_an_error_with_a_hint(echo: FakeLMStudio) -> None:
    echo.fail_always("hang")
    settings = {"first_token_timeout": 0.3}
    with client_of(echo, settings=settings) as client, pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**BODY)
    assert (caught.value.status_code, len(echo.requests)) == (504, 1)
    assert "first_token_timeout" in caught.value.message


def test_retries_are_not_multiplied(echo: FakeLMStudio) -> None:
    """lmdeck makes three attempts and OpenAI's client none; it does not notice a single failure."""
    echo.fail_always("server_error")
    with client_of(echo, max_retries=5, settings={"retry_delay": 0.001}) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**BODY)
        assert len(echo.requests) == 3
        echo.fail_always(None)
        echo.fail("server_error")
        assert client.chat.completions.create(**BODY).choices[0].message.content


def test_an_answer_that_is_left_ends_the_generation(fake: FakeLMStudio) -> None:
    """It ends by `close`, by the context manager, by a raw response that is never read, and by the garbage collector."""
    long = " ".join(["word"] * 2000)
    with client_of(fake) as client:
        for leave in ("close", "with", "raw", "drop"):
            fake.reply(long, tokens_per_second=200)
            if leave == "raw":
                with client.chat.completions.with_streaming_response.create(**BODY, stream=True) as raw:
                    next(raw.iter_bytes())
            else:
                stream = client.chat.completions.create(**BODY, stream=True)
                next(iter(stream))
                if leave == "close":
                    stream.close()
                elif leave == "with":
                    with stream:
                        next(stream)
                del stream
                gc.collect()
            until(lambda: fake.in_progress == 0)


async def test_a_cancelled_task_ends_the_generation(fake: FakeLMStudio) -> None:
    """A task may be cancelled while it waits for the answer, and in the middle of it."""
    long = " ".join(["word"] * 2000)
    async with async_client_of(fake) as client:
        for stream in (False, True):
            fake.reply(long, tokens_per_second=200)

            async def ask(stream: bool = stream) -> None:
                answer: Any = await client.chat.completions.create(**BODY, stream=stream)
                async for _ in answer:
                    continue

            task = asyncio.create_task(ask())
            await asyncio.to_thread(until, lambda: fake.in_progress)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(until, lambda: not fake.in_progress)


def test_threads_share_a_pool(fake: FakeLMStudio) -> None:
    for _ in range(24):
        fake.reply("Hello")
    with client_of(fake) as client, ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> str | None:
            return client.chat.completions.create(**BODY).choices[0].message.content

        assert set(pool.map(ask, range(24))) == {"Hello"}
        assert fake.open_connections <= 8


def test_tasks_and_loops_share_a_client(fake: FakeLMStudio) -> None:
    """Many tasks of one loop use the client, and then another loop does."""
    for _ in range(20):
        fake.reply("Hello")
    client = async_client_of(fake)

    async def ask(count: int) -> set[str | None]:
        answers = await asyncio.gather(*(client.chat.completions.create(**BODY) for _ in range(count)))
        return {answer.choices[0].message.content for answer in answers}

    assert asyncio.run(ask(10)) == {"Hello"}
    assert asyncio.run(ask(10)) == {"Hello"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_uses_connections_of_its_own(fake: FakeLMStudio) -> None:
    for _ in range(3):
        fake.reply("Hello")
    with client_of(fake) as client:
        client.chat.completions.create(**BODY)  # a connection is in the pool now
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
            child = os.fork()
        if not child:
            code = 1
            try:
                code = 0 if client.chat.completions.create(**BODY).choices[0].message.content == "Hello" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.chat.completions.create(**BODY).choices[0].message.content == "Hello"


def test_a_lock_that_a_fork_found_taken_does_not_block_the_child() -> None:
    transport = lmdeck.contrib.httpx2.RepairTransport()
    held = threading.Event()
    transport._upstream._lock.acquire()
    transport._upstream._process = -1  # as in a child
    threading.Thread(target=lambda: (transport.close(), held.set())).start()
    assert held.wait(PATIENCE)


def test_the_clients_address_is_asked_unless_a_setting_names_another(
    fake: FakeLMStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMDECK_BASE_URL", "http://127.0.0.1:9")
    fake.reply("Hello").reply("Hello")
    with client_of(fake) as client:
        assert client.chat.completions.create(**BODY).choices[0].message.content == "Hello"
    http = http_client(base_url=fake.base_url)
    with openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", http_client=http) as client:
        assert client.chat.completions.create(**BODY).choices[0].message.content == "Hello"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_file_of_the_project_does_not_redirect_the_clients_address(
    fake: FakeLMStudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Its proxy would read the client's key."""
    monkeypatch.chdir(tmp_path)
    fake.reply("Hello")
    with Loopback(hello) as proxy:
        (tmp_path / "lmdeck.toml").write_text(f'base_url = "http://theirs.example"\nproxy = "{proxy.url}"')
        if is_async:

            async def ask() -> Any:
                async with async_client_of(fake) as client:
                    return await client.chat.completions.create(**BODY)

            answer = asyncio.run(ask())
        else:
            with client_of(fake) as client:
                answer = client.chat.completions.create(**BODY)
        assert answer.choices[0].message.content == "Hello"
        assert not proxy.requests


def test_a_key_is_not_sent_where_a_project_s_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is made there is refused; a proxy leaves keys and cookies out, and has the file's own way."""
    monkeypatch.chdir(tmp_path)
    with Loopback(hello) as theirs:
        (tmp_path / "lmdeck.toml").write_text(f'base_url = "http://theirs.example"\nproxy = "{theirs.url}"')
        with pytest.raises(ConfigurationError, match="api_key is not sent"):
            OpenAI(api_key="sesame")
        with OpenAI() as client:
            client.chat.completions.create(**BODY)
        secrets = {"authorization": "Bearer sesame", "x-api-key": "sesame", "cookie": "a=sesame", "x-other": "kept"}

        async def ask() -> int:
            transport = httpx2.ASGITransport(app=RepairProxy())
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.post("/v1/chat/completions", json=BODY, headers=secrets)).status_code

        assert asyncio.run(ask()) == 200
        assert len(theirs.requests) == 2
        assert theirs.requests[-1].headers["x-other"] == "kept"
        assert not any("sesame" in value for request in theirs.requests for value in request.headers.values())


def test_the_clients_headers_and_query_arrive(fake: FakeLMStudio) -> None:
    fake.reply("Hello")
    with client_of(fake, default_headers={"X-Team": "a"}, default_query={"tenant": "1"}) as client:
        client.chat.completions.create(**BODY)
    request = last_asked(fake)
    assert request.headers["x-team"] == "a"
    assert (
        request.headers["user-agent"].startswith("OpenAI/Python") or "openai" in request.headers["user-agent"].lower()
    )


def test_a_model_of_the_settings_answers_where_none_is_named(fake: FakeLMStudio) -> None:
    fake.reply("Hello")
    with httpx2.Client(transport=lmdeck.contrib.httpx2.RepairTransport(model=MODEL)) as client:
        client.post(f"{fake.base_url}/v1/chat/completions", json={"messages": HELLO})
    assert last_asked(fake).model == MODEL


def test_a_wrong_setting_is_reported_at_once() -> None:
    with pytest.raises(ConfigurationError, match="retry"):
        http_client(retry_attempt=3)  # type: ignore[call-arg]


def test_a_body_that_is_not_json_is_refused_in_the_wire_format(fake: FakeLMStudio) -> None:
    with httpx2.Client(transport=lmdeck.contrib.httpx2.RepairTransport()) as client:
        answer = client.post(f"{fake.base_url}/v1/chat/completions", content=b"{")
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]
    assert fake.requests == []


def test_other_paths_pass_through_with_their_bodies(fake: FakeLMStudio) -> None:
    with httpx2.Client(transport=lmdeck.contrib.httpx2.RepairTransport()) as client:
        listed = client.get(f"{fake.base_url}/api/v1/models").json()
        loaded = client.post(f"{fake.base_url}/api/v1/models/load", json={"model": MODEL})
    assert listed["models"][0]["key"] == MODEL
    assert loaded.status_code == 200
    assert json.loads(loaded.text)


def test_calls_that_are_being_written_keep_the_connection_alive(fake: FakeLMStudio) -> None:
    """A client with a short limit on silence reads a long call, which is held back until it is whole."""
    arguments = {"text": "word " * 300}
    fake.tool_call("write", **arguments)
    tool: Any = {"type": "function", "function": {"name": "write", "parameters": {"type": "object", "properties": {}}}}
    with (
        client_of(fake) as client,
        client.chat.completions.with_streaming_response.create(**BODY, tools=[tool], stream=True) as raw,
    ):
        lines = list(raw.iter_lines())
    assert sum(line.startswith(":") for line in lines) > 10
    assert sum("tool_calls" in line and "write" in line for line in lines) == 1
