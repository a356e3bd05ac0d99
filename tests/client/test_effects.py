"""Requests that change something beyond their answer are sent once, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from asking import alm, lm, until
from lmdeck import (
    AsyncLMStudio,
    ConnectionLostError,
    InvalidRequestError,
    LMStudio,
    LMStudioError,
    ModelLoadError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    ServerUnreachableError,
)
from loopback import CLOSE, HANG, RESET, Answer, Loopback, Request, json_answer
from ports import free_port

LIST = "/api/v1/models"
MCP = {"type": "mcp", "server_label": "files", "server_url": "https://files.example/mcp"}
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
SETTINGS = {"retry_attempts": 3}
ASK: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a conversation with plugins": (
        "/api/v1/chat",
        lambda client: client.conversation(integrations=["mcp/mail"]).send("Hi"),
    ),
    "its stream": (
        "/api/v1/chat",
        lambda client: client.conversation(integrations=["mcp/mail"]).stream("Hi").until_done(),
    ),
    "a response with remote MCP": (
        "/v1/responses",
        lambda client: client.responses.create(input="Hi", tools=[WEATHER, MCP]),
    ),
    "its stream, too": (
        "/v1/responses",
        lambda client: client.responses.stream(input="Hi", tools=[WEATHER, MCP]).until_done(),
    ),
    "a message with MCP servers": (
        "/v1/messages",
        lambda client: client.messages.create(messages=[{"role": "user", "content": "Hi"}], mcp_servers=[MCP]),
    ),
    "a load": (f"{LIST}/load", lambda client: client.models.load("m")),
    "a forced load": (f"{LIST}/load", lambda client: client.models.load("m", force=True)),
    "ensure_loaded": (f"{LIST}/load", lambda client: client.models.ensure_loaded("m")),
    "an unload": (f"{LIST}/unload", lambda client: client.models.unload("m:1")),
    "a download": (f"{LIST}/download", lambda client: client.models.download("m")),
    "a download that is not waited for": (f"{LIST}/download", lambda client: client.models.download("m", wait=False)),
}
FAULTS: dict[str, tuple[Answer, type[LMStudioError]]] = {
    "a reset": ([RESET], ConnectionLostError),
    "a close": ([CLOSE], ConnectionLostError),
    "half a head": ([b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE], LMStudioError),
    "a failure": (json_answer({"error": {"type": "internal_error", "message": "fetch failed"}}, 500), ServerError),
    "a proxy that gave up": (json_answer({"error": "upstream"}, 502), ServerError),
    "silence": ([HANG], RequestTimeoutError),
}


def limits(fault: str) -> dict[str, float]:
    """Return a short time limit for silence alone: a busy machine needs longer for everything else."""
    return {"first_token_timeout": 0.5} if fault == "silence" else {}


BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def listing(*instances: str) -> Answer:
    loaded = [{"id": name, "config": {"context_length": 4096}} for name in instances]
    return json_answer({"models": [{"type": "llm", "key": "m", "loaded_instances": loaded}]})


def ask(url: str, question: Callable[[Any], Any], *, is_async: bool, **settings: Any) -> Any:
    given = {**SETTINGS, **settings}

    async def main(client: AsyncLMStudio) -> Any:
        async with client:
            return await question(client)

    if is_async:
        return asyncio.run(main(alm(url, **given)))
    client: LMStudio
    with lm(url, **given) as client:
        return question(client)


@BOTH
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ASK)
def test_a_request_with_effects_is_sent_once(name: str, fault: str, is_async: bool) -> None:
    """A reset, a failure or silence after it was sent ends it, and the hint says why it was not sent again."""
    path, question = ASK[name]
    answer, kind = FAULTS[fault]
    with Loopback(routes={LIST: listing("m:1") if "unload" in name else listing(), path: answer}) as server:
        with pytest.raises(kind) as caught:
            ask(server.url, question, is_async=is_async, **limits(fault))
        until(lambda: any(request.path == path for request in server.requests))  # a busy machine reads late
        assert [request.path for request in server.requests].count(path) == 1
    assert caught.value.attempts == 1
    if caught.value.retryable:
        assert "was not sent again" in caught.value.hint


@BOTH
@pytest.mark.parametrize("name", ASK)
def test_what_the_server_cannot_have_started_is_sent_again(name: str, is_async: bool) -> None:
    """A refusal for lack of room, and a connection that was never made."""
    path, question = ASK[name]
    instances = ("m:1",) if "unload" in name else ()
    refusal = json_answer({"error": "busy"}, 429, retry_after=0)
    with Loopback(routes={LIST: listing(*instances), path: refusal}) as server:
        with pytest.raises(RateLimitError) as caught:
            ask(server.url, question, is_async=is_async)
        assert [request.path for request in server.requests].count(path) == 3
    assert "was not sent again" not in caught.value.hint
    port = free_port()
    with pytest.raises(ServerUnreachableError) as unreached:
        ask(f"http://127.0.0.1:{port}", question, is_async=is_async)
    assert unreached.value.attempts == 3


@BOTH
@pytest.mark.parametrize(
    "question",
    [
        lambda client: client.conversation().send("Hi"),
        lambda client: client.responses.create(input="Hi", tools=[WEATHER]),
        lambda client: client.messages.create(messages=[{"role": "user", "content": "Hi"}], tools=[WEATHER]),
        lambda client: client.embed("Hi", model="m"),
    ],
)
def test_a_request_without_effects_is_sent_again(question: Callable[[Any], Any], is_async: bool) -> None:
    """The caller's own tools run here, not on the server."""
    with Loopback([RESET]) as server:
        with pytest.raises(ConnectionLostError) as caught:
            ask(server.url, question, is_async=is_async)
        assert len(server.requests) == 3
    assert "was not sent again" not in caught.value.hint


class Machine:
    """A server that loads and unloads, and then loses its answer."""

    def __init__(self, *instances: str, fault: Answer) -> None:
        self.instances = list(instances)
        self.fault = fault
        self.served = Loopback(
            routes={LIST: lambda _: listing(*self.instances), f"{LIST}/load": self.load, f"{LIST}/unload": self.unload}  # type: ignore[dict-item, return-value]  # a function may give an answer's steps
        )

    def load(self, request: Request) -> Answer:
        self.instances.append(f"m:{len(self.instances) + 1}")
        return self.fault

    def unload(self, request: Request) -> Answer:
        self.instances.remove(request.json["instance_id"])
        return self.fault


LOST = pytest.mark.parametrize("fault", ["a reset", "a failure", "silence"])


@BOTH
@LOST
def test_a_load_whose_answer_was_lost_is_looked_for(fault: str, is_async: bool) -> None:
    """The instance that the list has now and had not before is the one."""
    machine = Machine(fault=FAULTS[fault][0])
    with machine.served as server:
        loaded = ask(server.url, lambda client: client.models.load("m"), is_async=is_async, **limits(fault))
        assert (loaded.instance_id, loaded.already_loaded) == ("m:1", False)
        forced = ask(server.url, lambda client: client.models.load("m", force=True), is_async=is_async, **limits(fault))
        assert (forced.instance_id, forced.already_loaded) == ("m:2", False)
        assert ask(
            server.url, lambda client: client.models.ensure_loaded("m"), is_async=is_async, **limits(fault)
        ).already_loaded
        assert machine.instances == ["m:1", "m:2"]


@BOTH
@LOST
def test_an_unload_whose_answer_was_lost_is_looked_for(fault: str, is_async: bool) -> None:
    """The instance is gone from the list."""
    machine = Machine("m:1", fault=FAULTS[fault][0])
    with machine.served as server:
        assert ask(server.url, lambda client: client.models.unload("m:1"), is_async=is_async, **limits(fault)) == "m:1"
        assert machine.instances == []


@BOTH
def test_a_load_that_is_refused_is_not_looked_for(is_async: bool) -> None:
    """The refusal is the answer."""
    refusal = json_answer({"error": {"type": "model_load_failed", "message": "Failed to load model"}}, 500)
    with Loopback(routes={LIST: listing(), f"{LIST}/load": refusal}) as server:
        with pytest.raises(ModelLoadError):
            ask(server.url, lambda client: client.models.load("m"), is_async=is_async)
        assert [request.path for request in server.requests] == [LIST, f"{LIST}/load"]


@BOTH
@pytest.mark.parametrize("kind", ["mcp_connection_error", "plugin_connection_error"])
@pytest.mark.parametrize("integrations", [[], ["mcp/files"]])
def test_a_plugin_or_server_that_is_set_up_wrongly_is_asked_for_once(
    kind: str, integrations: list[str], is_async: bool
) -> None:
    """A refusal with a status of the caller's fault can never succeed, also where the request names no integration."""
    refusal = json_answer({"error": {"type": kind, "message": "must be in owner/name format"}}, 400)
    with Loopback(refusal) as server:
        with pytest.raises(InvalidRequestError) as caught:
            ask(server.url, lambda client: client.conversation(integrations=integrations).send("Hi"), is_async=is_async)
        assert len(server.requests) == 1
    assert "LM Studio could not" in caught.value.hint


LOST = [errno.EHOSTUNREACH, errno.ENETDOWN, errno.EIO, errno.ETIMEDOUT]


def break_reads(monkeypatch: pytest.MonkeyPatch, port: int, number: int) -> None:
    """Let the system report that a connection to a port broke, where the client reads its answer."""

    def broken(name: str) -> Callable[..., Any]:
        whole = getattr(socket.socket, name)

        def read(sock: socket.socket, *given: Any) -> Any:
            if sock.getpeername()[1] == port:
                raise OSError(number, os.strerror(number))
            return whole(sock, *given)

        return read

    for name in ("recv", "recv_into"):
        monkeypatch.setattr(socket.socket, name, broken(name), raising=False)


@BOTH
@pytest.mark.parametrize("number", LOST, ids=errno.errorcode.get)
def test_a_connection_that_the_system_gives_up_was_lost_and_not_unreachable(
    monkeypatch: pytest.MonkeyPatch, number: int, is_async: bool
) -> None:
    """The server was reached and may have begun: a request with effects is sent once, another again."""
    begun = [b"HTTP/1.1 200 OK", HANG]
    with Loopback(routes={LIST: listing(), f"{LIST}/download": begun, "/v1/completions": begun}) as server:
        break_reads(monkeypatch, int(server.url.rpartition(":")[2]), number)
        with pytest.raises(ConnectionLostError) as caught:
            ask(server.url, lambda client: client.models.download("m"), is_async=is_async)
        assert caught.value.attempts == 1
        assert "was not sent again" in caught.value.hint
        assert os.strerror(number).lower() in caught.value.message
        with pytest.raises(ConnectionLostError) as caught:
            ask(server.url, lambda client: client.complete("Hi"), is_async=is_async, retry_delay=0.001)
        assert caught.value.attempts == 3


@BOTH
def test_no_request_is_repeated_behind_the_retry_policy(is_async: bool) -> None:
    """A GET on a kept connection that the server closes without an answer counts as an attempt."""
    whole = json_answer({"models": []})
    with Loopback(whole, [CLOSE], whole) as server:

        def question(client: Any) -> Any:
            return client.models.list()

        async def twice(client: AsyncLMStudio) -> LMStudioError:
            async with client:
                await question(client)
                with pytest.raises(ConnectionLostError) as caught:
                    await question(client)
                return caught.value

        if is_async:
            error: LMStudioError = asyncio.run(twice(alm(server.url)))
        else:
            with lm(server.url) as client:
                question(client)
                with pytest.raises(ConnectionLostError) as caught:
                    question(client)
                error = caught.value
        assert error.attempts == 1
        assert len(server.requests) == 2
        assert len(server.connections) == 1
