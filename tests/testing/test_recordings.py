"""Record, replay over HTTP, and read again offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmdeck import ConfigurationError, LMStudio, LMStudioError
from lmdeck._recordings.cassette import RecordedExchange, RecordedPiece, load, save
from lmdeck._recordings.recorder import Recorder
from lmdeck._recordings.replay import parse_exchange
from lmdeck.server.serve import BackgroundServer
from lmdeck.server.sockets import listen
from lmdeck.testing import FakeLMStudio
from ports import free_port

MODEL = "qwen2.5-7b-instruct"


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"sun over {city}"


@pytest.fixture
def cassette(tmp_path: Path) -> Path:
    """A recording of a conversation with all kinds of answers."""
    path = tmp_path / "cassette.jsonl"
    with (
        FakeLMStudio(seed=3, api_token="s3cret") as fake,
        BackgroundServer(Recorder(fake.base_url, path), listen()) as recorder,
    ):
        fake.reply("Zoë says hello", reasoning="greet").tool_call(
            "get_weather", city="Paris", dialect="qwen3-coder-xml"
        )
        fake.reply("native").error(503, "busy").fail("early_end")
        with fake.client(base_url=recorder.base_url, retry_attempts=1) as lm:
            chat = lm.chat(MODEL).user("Hi").with_tools([get_weather])
            with chat.stream() as stream:
                stream.until_done()
            chat.send()
            lm.conversation(MODEL).send("Hi")
            for _ in range(2):
                with pytest.raises(LMStudioError), chat.stream() as stream:
                    stream.until_done()
            lm.models.list()
    return path


def test_recordings_have_the_bytes_and_no_secrets(cassette: Path) -> None:
    assert "s3cret" not in cassette.read_text(encoding="utf-8")
    exchanges = load(cassette)
    assert [exchange.path for exchange in exchanges].count("/v1/chat/completions") == 4
    streamed = next(exchange for exchange in exchanges if "event-stream" in exchange.headers.get("content-type", ""))
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert [piece.at for piece in streamed.pieces] == sorted(piece.at for piece in streamed.pieces)
    assert streamed.request["messages"][-1] == {"role": "user", "content": "Hi"}
    assert streamed.request_headers["authorization"] == "(removed)"


def test_a_recording_is_read_again_offline(cassette: Path) -> None:
    chats = [parse_exchange(exchange) for exchange in load(cassette) if exchange.method == "POST"]
    hello, call, native, busy, cut = chats
    assert hello.reply
    assert (hello.reply.content, hello.reply.reasoning) == ("Zoë says hello", "greet")
    assert call.reply
    assert [(made.name, made.arguments) for made in call.reply.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert native.reply
    assert native.reply.content == "native"
    assert type(busy.error).__name__ == "ServerError"
    assert type(cut.error).__name__ == "IncompleteStreamError"
    assert cut.reply is not None


def test_a_recording_is_played_back_over_http(cassette: Path) -> None:
    with FakeLMStudio.replay(cassette) as fake, fake.client(retry_attempts=1) as lm:
        chat = lm.chat(MODEL).user("Anything").with_tools([get_weather])
        with chat.stream() as stream:
            assert stream.until_done().content == "Zoë says hello"
        assert chat.send().tool_calls[0].arguments == {"city": "Paris"}
        with pytest.raises(LMStudioError, match="busy"):
            chat.send()
        with pytest.raises(LMStudioError, match="cut"), chat.stream() as stream:
            stream.until_done()
        with pytest.raises(LMStudioError, match="no more answers"):
            chat.send()
        assert [lm.models.list()[0].key for _ in range(2)] == [MODEL, MODEL]


def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    odd = bytes(range(256))
    save(
        [RecordedExchange(method="POST", path="/v1/chat/completions", status=200, pieces=[RecordedPiece.of(odd, 0.5)])],
        tmp_path / "c",
    )
    (exchange,) = load(tmp_path / "c")
    assert exchange.body == odd
    assert parse_exchange(exchange).error is not None


def test_an_upstream_that_is_not_there_is_reported(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    path = tmp_path / "c"
    with (
        BackgroundServer(Recorder(url, path), listen()) as recorder,
        LMStudio(base_url=recorder.base_url, retry_attempts=1) as lm,
        pytest.raises(LMStudioError, match="cannot reach"),
    ):
        lm.chat(MODEL).user("a").send()
    assert {exchange.status for exchange in load(path)} == {502}


def test_an_upstream_that_is_no_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'localhost:1234' is not an address"):
        Recorder("localhost:1234", tmp_path / "c")


def test_a_bad_recording_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(json.dumps({"method": "GET", "path": "/"}) + "\n{oops\n")
    with pytest.raises(ConfigurationError, match="Line 2"):
        load(tmp_path / "c")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "nothing")
