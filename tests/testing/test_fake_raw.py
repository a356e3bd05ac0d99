"""Answers given byte for byte, at any path, and what the fake tells of its connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from lmdeck import AuthenticationError, IncompleteStreamError, LMStudioError, ServerError
from lmdeck.testing import Answer, FakeLMStudio, RawAnswer
from loopback import PATIENCE

CHAT, LIST = "/v1/chat/completions", "/api/v1/models"
ASKED = {"messages": [{"role": "user", "content": "Hi"}]}


def chunk(content: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def said(fake: FakeLMStudio, body: object) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask without lmdeck, and give status, headers and body."""
    with closing(http.client.HTTPConnection(str(urlsplit(fake.base_url).netloc), timeout=PATIENCE)) as connection:
        connection.request("POST", CHAT, json.dumps(body))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_raw_bytes_are_sent_unchanged(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.raw(b"\xff", b"\x00{", status=218, content_type="text/odd", headers={"X-Odd": "yes"})
    status, headers, body = said(fake_lmstudio, ASKED)
    assert (status, body) == (218, b"\xff\x00{")
    assert (headers["content-type"], headers["x-odd"], headers["content-length"]) == ("text/odd", "yes", None)


def test_one_piece_has_its_length_and_none_is_empty(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.raw(b"five!").raw()
    assert said(fake_lmstudio, ASKED)[1]["content-length"] == "5"
    _, headers, body = said(fake_lmstudio, ASKED)
    assert (headers["content-length"], body) == ("0", b"")


def test_a_body_takes_any_request(fake_lmstudio: FakeLMStudio) -> None:
    """One that LM Studio would refuse as well."""
    fake_lmstudio.body({"odd": "é"}, status=203)
    status, _, body = said(fake_lmstudio, {"nonsense": 1})
    assert (status, json.loads(body)) == (203, {"odd": "é"})


def test_frames_are_events(fake_lmstudio: FakeLMStudio) -> None:
    """Frames with a type become named events; others are followed by an end mark."""
    fake_lmstudio.frames({"a": 1}, b": odd\n\n").frames({"a": 1}, done=False).frames({"type": "b", "c": 2})
    assert [said(fake_lmstudio, ASKED)[2] for _ in range(3)] == [
        b'data: {"a": 1}\n\n: odd\n\ndata: [DONE]\n\n',
        b'data: {"a": 1}\n\n',
        b'event: b\ndata: {"type": "b", "c": 2}\n\n',
    ]


def test_frames_are_never_cut_and_wait_as_long_as_they_say() -> None:
    with FakeLMStudio(seed=3) as fake, fake.client() as client:
        fake.frames(chunk("Hello "), 0.1, chunk("World, how are you?", "stop"))
        with client.chat().user("a").stream() as stream:
            assert [each.content for each in stream if each.content] == ["Hello ", "World, how are you?"]
        assert stream.reply.stats.measured.total_time is not None
        assert stream.reply.stats.measured.total_time >= 0.1


def test_a_wait_ends_when_the_client_leaves(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.frames(chunk("Hel"), 600)
    with fake_lmstudio.client() as client, client.chat().user("a").stream() as stream:
        assert next(stream).content == "Hel"
    fake_lmstudio.close()


def test_functions_may_return_bytes() -> None:
    with FakeLMStudio() as fake, fake.client() as client:
        fake.respond(lambda request: RawAnswer.frames(chunk(request.last_user.upper(), "stop")))
        fake.respond(lambda _: RawAnswer.frames(chunk("Hel"), done=False))
        chat = client.chat().user("hi")
        assert chat.stream().until_done().content == "HI"
        with pytest.raises(IncompleteStreamError):
            chat.stream().until_done()
        fake.assert_exhausted()


def test_a_path_has_its_own_answers(fake_lmstudio: FakeLMStudio) -> None:
    """The last one again and again; the queue is for what a model answers."""
    fake_lmstudio.reply("kept")
    fake_lmstudio.at(LIST).body({"models": [{"key": "a"}]}).body({"models": [{"key": "b"}]})
    with fake_lmstudio.client() as client:
        assert [[model.key for model in client.models.list()] for _ in range(3)] == [["a"], ["b"], ["b"]]
        assert client.chat("qwen2.5-7b-instruct").user("Hi").send().content == "kept"
    fake_lmstudio.assert_exhausted()


def test_refusals_and_faults_at_a_path(fake_lmstudio: FakeLMStudio) -> None:
    at = fake_lmstudio.at(LIST)
    at.error(503, "busy").fail("unauthorized").respond(lambda _: Answer(refusal=None))
    with fake_lmstudio.client(retry_attempts=1) as client:
        with pytest.raises(ServerError, match="busy"):
            client.models.list()
        with pytest.raises(AuthenticationError):
            client.models.list()
        with pytest.raises(LMStudioError, match="GET /api/v1/models is not answered by a model"):
            client.models.list()


def test_a_rule_of_requests_does_not_affect_model_lists(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.when(lambda _: True).body({"odd": 1})
    with fake_lmstudio.client() as client:
        assert client.models.list()


def test_a_text_at_a_path_is_a_regular_answer(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.at(CHAT).reply("Hello.")
    with fake_lmstudio.client() as client:
        assert client.chat().user("Hi").send().content == "Hello."
        assert client.chat().user("Hi").stream().until_done().content == "Hello."


def test_a_path_of_a_proxy(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.at(f"/proxy{CHAT}").body({"choices": [{"message": {"content": "Hi."}, "finish_reason": "stop"}]})
    with fake_lmstudio.client(base_url=f"{fake_lmstudio.base_url}/proxy", model="m") as client:
        assert client.chat().user("Hi").send().content == "Hi."


def test_faults_reach_embeddings_by_rules_too(fake_lmstudio: FakeLMStudio) -> None:
    fake_lmstudio.when(lambda request: request.path == "/v1/embeddings").error(503, "busy")
    with fake_lmstudio.client(retry_attempts=1) as client, pytest.raises(ServerError, match="busy"):
        client.embed("x")


def test_functions_are_asked_for_embeddings_only_at_their_path(fake_lmstudio: FakeLMStudio) -> None:
    """A function for whatever is asked expects questions to a chat."""
    fake_lmstudio.when(lambda _: True).respond(lambda request: str(request.messages[0]["content"]))
    with fake_lmstudio.client() as client:
        assert len(client.embed("x").vectors) == 1
        fake_lmstudio.reset()
        fake_lmstudio.at("/v1/embeddings").respond(lambda _: RawAnswer.json({"data": [{"embedding": [1.0]}]}))
        assert client.embed("x").vectors == [[1.0]]


async def test_connections_and_requests_at_once_are_counted() -> None:
    async with FakeLMStudio(time_to_first_token=0.05) as fake:
        fake.when(lambda _: True).reply("Hi.")
        assert (fake.open_connections, fake.most_at_once) == (0, 0)
        async with fake.async_client(model="qwen2.5-7b-instruct", max_concurrency=3) as client:
            await asyncio.gather(*(client.chat().user("x").send() for _ in range(6)))
            assert fake.most_at_once == 3
            assert fake.open_connections == 3
            assert {request.connection for request in fake.requests} == {0, 1, 2}
        fake.reset()
        assert fake.most_at_once == 0


def test_a_connection_is_used_again_after_a_body_whose_end_comes_late() -> None:
    """The end of a body with a length is no byte, and must not hold up the next answer."""
    headers = {"content-type": "application/json", "content-length": "2"}
    with FakeLMStudio() as fake:
        fake.at("/v1/models").answer(RawAnswer((b"{}", 0.05), headers=headers))
        with closing(http.client.HTTPConnection(urlsplit(fake.base_url).netloc, timeout=PATIENCE)) as connection:
            for _ in range(3):
                connection.request("GET", "/v1/models")
                assert connection.getresponse().read() == b"{}"


@pytest.mark.parametrize("attempt", range(25))
def test_a_closed_server_leaves_no_connection_open(attempt: int) -> None:
    """A connection that was accepted right before is closed, too, which asyncio would forget."""
    connections: list[socket.socket] = []
    fake = FakeLMStudio().start()
    address = (str(urlsplit(fake.base_url).hostname), urlsplit(fake.base_url).port)

    def connect() -> None:
        with contextlib.suppress(OSError):  # the port is closed
            for _ in range(20):
                connections.append(socket.create_connection(address, timeout=PATIENCE))
                connections[-1].sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")

    connecting = threading.Thread(target=connect)
    connecting.start()
    fake.close()
    connecting.join()
    for connection in connections:
        with closing(connection), contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
