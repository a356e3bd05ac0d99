"""Images that tools return, images in histories, and images of more pixels than LM Studio takes."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image as Picture

import lmdeck
from asking import alm, lm
from lmdeck import History, InvalidRequestError, Reply, ToolCall, tool
from lmdeck.testing import FakeLMStudio
from loopback import Loopback, json_answer

BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def drawn(kind: str = "png", size: tuple[int, int] = (3, 2), mode: str = "RGB", **how: Any) -> bytes:
    written = io.BytesIO()
    Picture.new(mode, size).save(written, kind.upper(), **how)
    return written.getvalue()


PNG, JPEG, GIF, WEBP, BMP = (drawn(kind) for kind in ("png", "jpeg", "gif", "webp", "bmp"))


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclasses.dataclass
class Shot:
    title: str
    picture: lmdeck.Image | bytes


BASE64 = base64.b64encode(PNG).decode()
RETURNED: dict[str, tuple[Callable[[], object], str]] = {
    "PNG bytes": (lambda: PNG, "[image 1]"),
    "JPEG bytes": (lambda: bytearray(JPEG), "[image 1]"),
    "GIF bytes": (lambda: memoryview(GIF), "[image 1]"),
    "WebP bytes": (lambda: WEBP, "[image 1]"),
    "BMP bytes": (lambda: BMP, "[image 1]"),
    "an Image": (lambda: lmdeck.Image(PNG), "[image 1]"),
    "a data URI": (lambda: uri(PNG), "[image 1]"),
    "words and an image": (lambda: ["Taken.", lmdeck.Image(PNG)], "Taken.\n[image 1]"),
    "a tuple": (lambda: ("Taken.", PNG), "Taken.\n[image 1]"),
    "a dict": (lambda: {"title": "Home", "shot": PNG}, '{"title":"Home","shot":"[image 1]"}'),
    "a dataclass": (lambda: Shot("Home", lmdeck.Image(PNG)), '{"title":"Home","picture":"[image 1]"}'),
    "bytes in a dataclass": (lambda: [Shot("Home", PNG)], '[{"title":"Home","picture":"[image 1]"}]'),
    "MCP's content": (lambda: {"type": "image", "data": BASE64, "mimeType": "image/png"}, "[image 1]"),
    "MCP's object": (lambda: SimpleNamespace(type="image", data=BASE64, mime_type="image/png"), "[image 1]"),
    "OpenAI's part": (lambda: {"type": "image_url", "image_url": {"url": uri(PNG)}}, "[image 1]"),
    "Anthropic's block": (
        lambda: {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
        },
        "[image 1]",
    ),
    "a part of Responses": (lambda: {"type": "input_image", "image_url": uri(PNG)}, "[image 1]"),
    "an embedded resource of MCP": (
        lambda: {
            "type": "resource",
            "resource": {"uri": "file:///a.png", "mimeType": "image/png", "blob": base64.b64encode(PNG).decode()},
        },
        "[image 1]",
    ),
    "a picture of Pillow": (lambda: Picture.new("RGB", (3, 2)), "[image 1]"),
    "two images": (lambda: [PNG, JPEG], "[image 1]\n[image 2]"),
}
NO_IMAGE: dict[str, tuple[object, str]] = {
    "words that begin like a BMP": (b"BMW builds cars", "BMW builds cars"),
    "words that begin like a GIF": (b"GIF89a is a format", "GIF89a is a format"),
    "other bytes": (b"\xff\x00", "/wA="),
    "a web address": ("https://host/cat.png", "https://host/cat.png"),
    "words about data URIs": ("data:image/png;base64,… is a data URI", "data:image/png;base64,… is a data URI"),
}


def run(fake: FakeLMStudio, value: object, *, is_async: bool) -> Reply:
    """Have a tool return a value, and return the reply of the run."""

    @tool
    def shoot() -> object:
        """Take a picture."""
        return value

    fake.tool_call("shoot").reply("I see.")

    async def ask() -> Reply:
        async with alm(fake.base_url) as client:
            return await client.chat().user("Look.").with_tools([shoot]).run()

    if is_async:
        return asyncio.run(ask())
    with lm(fake.base_url) as client:
        return client.chat().user("Look.").with_tools([shoot]).run()


def pictures(content: Any) -> list[Any]:
    """Return the images of a message's content, opened."""
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [Picture.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


@BOTH
@pytest.mark.parametrize("name", RETURNED)
def test_an_image_that_a_tool_returns_is_shown_to_the_model(fake: FakeLMStudio, name: str, is_async: bool) -> None:
    """It is sent in a user message after the result, in whatever form it was returned, and reported."""
    make, text = RETURNED[name]
    reply = run(fake, make(), is_async=is_async)
    assert reply.content == "I see."
    result, shown = fake.requests[-1].body["messages"][-2:]
    assert (result["role"], result["content"]) == ("tool", text)
    assert shown["role"] == "user"
    assert shown["content"][0] == {"type": "text", "text": "Images returned by shoot:"}
    images = pictures(shown["content"])
    assert [image.size for image in images] == [(3, 2)] * text.count("[image")
    assert {image.format for image in images} <= {"PNG", "JPEG"}
    assert reply.rounds[0].results[0].content == text
    assert "tool_images" in [problem.rule for problem in reply.problems]


@BOTH
@pytest.mark.parametrize("name", NO_IMAGE)
def test_what_is_no_image_stays_text(fake: FakeLMStudio, name: str, is_async: bool) -> None:
    """Signatures that text may have by chance are looked at twice."""
    value, text = NO_IMAGE[name]
    reply = run(fake, value, is_async=is_async)
    assert fake.requests[-1].body["messages"][-1] == {
        "role": "tool", "content": text, "tool_call_id": reply.rounds[0].results[0].call.id,
    }  # fmt: skip
    assert reply.problems == []


@BOTH
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lmdeck.Image("/no/such/picture.png"), "cannot be read"),
        (lmdeck.Image(b"words"), "is not a PNG"),
        (lmdeck.Image("https://host/a.png"), "does not fetch"),
        ({"type": "image", "data": "?", "mimeType": "image/png"}, "not base64"),
        (b"RIFF\x1a\x00\x00\x00WEBPVP8 \x0e\x00\x00\x00" + bytes(14), "cannot be decoded"),
    ],
)
def test_an_image_that_cannot_be_shown_is_named(fake: FakeLMStudio, value: object, words: str, is_async: bool) -> None:
    """The model hears why, the reply says so, and the run goes on."""
    reply = run(fake, value, is_async=is_async)
    (result,) = reply.rounds[0].results
    assert result.content.startswith("[image 1]\n[image 1 cannot be shown: ")
    assert words in result.content
    assert [problem.code for problem in reply.problems] == ["image_dropped"]
    assert fake.requests[-1].body["messages"][-1]["content"] == result.content


def test_an_image_may_be_a_file(fake: FakeLMStudio, tmp_path: Path) -> None:
    """This holds for a tool's result and for a user message."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    run(fake, lmdeck.Image(path), is_async=False)
    assert len(pictures(fake.requests[-1].body["messages"][-1]["content"])) == 1
    fake.reply("A cat.")
    with lm(fake.base_url) as client:
        client.chat().user("What?", images=[lmdeck.Image(str(path))]).send()
    assert len(pictures(fake.requests[-1].body["messages"][-1]["content"])) == 1
    assert "'" in repr(lmdeck.Image(path))
    assert lmdeck.Image(PNG) == lmdeck.Image(PNG)
    assert len({lmdeck.Image(PNG), lmdeck.Image(PNG)}) == 1
    assert "bytes" in repr(lmdeck.Image(PNG))


CALLS = [ToolCall(id=f"call{number}abc", name=name) for number, name in enumerate(("shoot", "look"))]
SHOT = [{"type": "text", "text": "taken"}, {"type": "image_url", "image_url": {"url": uri(PNG)}}]


def given(*after: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a history of two calls with an image in each result."""
    return [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "tool_calls": [call.to_dict() for call in CALLS]},
        {"role": "tool", "tool_call_id": CALLS[0].id, "content": SHOT},
        {"role": "tool", "tool_call_id": CALLS[1].id, "content": SHOT[1:]},
        *after,
    ]


@BOTH
def test_images_in_results_of_a_history_are_moved(hello: FakeLMStudio, is_async: bool) -> None:
    """They follow all results of an answer, or join the user's next message if it follows directly."""

    async def ask(messages: list[dict[str, Any]]) -> Reply:
        async with alm(hello.base_url) as client:
            return await client.chat().with_messages(messages).send()

    def sent(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if is_async:
            reply = asyncio.run(ask(messages))
        else:
            with lm(hello.base_url) as client:
                reply = client.chat().with_messages(messages).send()
        assert [problem.rule for problem in reply.problems] == ["tool_images"] * 2
        body: list[dict[str, Any]] = hello.requests[-1].body["messages"]
        return body

    messages = sent(given())
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[2]["content"] == "taken"
    assert messages[3]["content"] == "[image: it is in the next user message]"
    assert [part.get("text") for part in messages[4]["content"]] == [
        "Images returned by shoot:", None, "Images returned by look:", None,
    ]  # fmt: skip
    messages = sent(given({"role": "user", "content": "And?"}))
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert messages[4]["content"][-1] == {"type": "text", "text": "And?"}
    messages = sent(given({"role": "assistant", "content": "A cat."}, {"role": "user", "content": "And?"}))
    assert [message["role"] for message in messages][3:] == ["tool", "user", "assistant", "user"]


def test_the_rule_can_be_turned_off(hello: FakeLMStudio) -> None:
    """Another server takes images where they are."""
    with lm(hello.base_url) as client:
        client.chat().with_messages(given()).without_rules("tool_images").send()
    assert hello.requests[-1].body["messages"][2]["content"] == SHOT


def test_a_history_goes_on_from_a_run_with_images(fake: FakeLMStudio) -> None:
    """The images stay in it, and are sent again; a saved history has them, too."""
    reply = run(fake, PNG, is_async=False)
    history = History.from_json(History().add(reply).to_json())
    fake.reply("As before.")
    with lm(fake.base_url) as client:
        client.chat().user("Look.").with_messages(history.messages).user("And?").send()
    assert len(pictures(fake.requests[-1].body["messages"][3]["content"])) == 1


def test_a_result_with_an_image_is_added_by_hand(hello: FakeLMStudio) -> None:
    """It can be added to a history and to a chat."""
    asked = Reply(tool_calls=CALLS[:1])
    history = History().user("Look.").add(asked).tool_result(CALLS[0], ["Taken.", PNG])
    with lm(hello.base_url) as client:
        client.chat().with_messages(history.messages).send()
        client.chat().user("Look.").with_messages([asked.message]).tool_result(CALLS[0], lmdeck.Image(PNG)).send()
        with pytest.raises(InvalidRequestError):
            client.chat().tool_result(CALLS[0], lmdeck.Image("http://host/a.png"))
    for request in hello.requests:
        assert [message["role"] for message in request.body["messages"]] == ["user", "assistant", "tool", "user"]
        assert len(pictures(request.body["messages"][-1]["content"])) == 1


def test_images_in_results_of_anthropic_s_messages_are_moved(fake: FakeLMStudio) -> None:
    """LM Studio refuses a `tool_result` with an image block."""
    fake.reply("A cat.")
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "taken"}, image]}
    messages = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "shoot", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    with lm(fake.base_url) as client:
        reply = client.messages.create(messages=messages)
    sent = fake.requests[0].body["messages"]
    assert sent[2]["content"] == [{**result, "content": "taken"}]
    assert sent[3] == {"role": "user", "content": [{"type": "text", "text": "Images returned by shoot:"}, image]}
    assert [problem.rule for problem in reply.problems] == ["tool_images"]
    with lm(fake.base_url, without_rules=["tool_images"]) as client, pytest.raises(InvalidRequestError):
        client.messages.create(messages=messages)
    assert fake.requests[-1].body["messages"] == messages


def test_images_in_results_on_the_responses_endpoint_are_moved(fake: FakeLMStudio) -> None:
    """LM Studio and llama.cpp refuse a `function_call_output` with an image; the results of one answer stay together."""
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"}
    output = {"type": "function_call_output", "output": [{"type": "input_text", "text": "taken"}, image]}
    calls = [{"type": "function_call", "call_id": id_, "name": "shoot", "arguments": "{}"} for id_ in "ab"]
    results = [{**output, "call_id": "a"}, {"type": "function_call_output", "call_id": "b", "output": "no"}]
    items = [{"role": "user", "content": "Look."}, *calls, *results]
    moved = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Images returned by shoot:"}, image],
    }
    asked_again = {"role": "user", "content": "And?"}
    with lm(fake.base_url) as client:
        for following in ([], [asked_again]):
            fake.reply("A cat.")
            reply = client.responses.create(input=[*items, *following])
            sent = fake.requests[-1].body["input"]
            assert sent == [*items[:3], {**results[0], "output": "taken"}, results[1], moved, *following]
            assert [problem.rule for problem in reply.problems] == ["tool_images"]
    fake.reply("As it is.")
    with lm(fake.base_url, without_rules=["tool_images"]) as client:
        client.responses.create(input=[*items, asked_again])
    assert fake.requests[-1].body["input"] == [*items, asked_again]


def test_an_image_shared_by_equal_calls_is_sent_once(fake: FakeLMStudio) -> None:
    """Three calls get three results, and the image is sent once."""

    @tool
    def shoot() -> bytes:
        return PNG

    fake.tool_calls([("shoot", {})] * 3).reply("I see.")
    with lm(fake.base_url) as client:
        client.chat().user("Look.").with_tools([shoot]).run()
    *_, shown = fake.requests[-1].body["messages"]
    assert [message["role"] for message in fake.requests[-1].body["messages"]][2:] == ["tool", "tool", "tool", "user"]
    assert len(pictures(shown["content"])) == 1


# --- too many pixels --------------------------------------------------------------------------------------------------------

WIDE = (6000, 4600)  # 27.6 million pixels


def scaled(hello: FakeLMStudio, big: bytes, *, is_async: bool) -> Any:
    """Send an image that is too large, and return what arrived of it."""

    async def ask() -> Reply:
        async with alm(hello.base_url) as client:
            return await client.chat().user("What?", images=[big]).send()

    if is_async:
        reply = asyncio.run(ask())
    else:
        with lm(hello.base_url) as client:
            reply = client.chat().user("What?", images=[big]).send()
    assert "scaled down to the" in reply.problems[-1].detail
    assert {problem.rule for problem in reply.problems} == {"images"}
    return pictures(hello.requests[0].body["messages"][0]["content"])[0]


@BOTH
def test_an_image_of_too_many_pixels_is_scaled_down(hello: FakeLMStudio, is_async: bool) -> None:
    """It is scaled down to LM Studio's limit, and no further."""
    image = scaled(hello, drawn("png", WIDE, "1"), is_async=is_async)
    assert 26_000_000 < image.width * image.height <= 26_214_400
    assert image.width / image.height == pytest.approx(6000 / 4600, rel=0.001)


@BOTH
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("png", "RGBA"), ("png", "P"), ("png", "I;16"), ("jpeg", "RGB"), ("jpeg", "CMYK"), ("webp", "RGB"), ("gif", "P")],
)
def test_images_of_every_kind_are_scaled_down(
    monkeypatch: pytest.MonkeyPatch, hello: FakeLMStudio, kind: str, mode: str, is_async: bool
) -> None:
    """Their proportions stay."""
    monkeypatch.setattr("lmdeck._requests.images.MAX_PIXELS", 5000)
    image = scaled(hello, drawn(kind, (200, 100), mode), is_async=is_async)
    assert image.size == (100, 50)
    assert image.format == ("JPEG" if kind == "jpeg" else "PNG")


@pytest.mark.parametrize(
    ("options", "size", "fits"),
    [
        ({}, (320, 240), True),
        ({}, (204, 150), True),
        ({"progressive": True}, (320, 240), False),
        ({}, (410, 300), False),
    ],
    ids=["scaled by the decoder", "halved", "progressive", "too large"],
)
def test_a_jpeg_of_more_pixels_than_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, hello: FakeLMStudio, options: dict[str, Any], size: tuple[int, int], fits: bool
) -> None:
    """A photograph of 100 or 200 million pixels is decoded at half its size."""
    monkeypatch.setattr("lmdeck._requests.images.MAX_PIXELS", 8000)
    monkeypatch.setattr("lmdeck._requests.image_conversion.MAX_PIXELS", 30_000)
    big = drawn("jpeg", size, "RGB", **options)
    if not fits:
        with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match="more than 30000 pixels"):
            client.chat().user("What?", images=[big]).send()
        return
    image = scaled(hello, big, is_async=False)
    assert 7000 < image.width * image.height <= 8000
    assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_scaling_keeps_what_says_how_to_show_an_image(monkeypatch: pytest.MonkeyPatch, hello: FakeLMStudio) -> None:
    """The orientation of a photograph is kept."""
    monkeypatch.setattr("lmdeck._requests.images.MAX_PIXELS", 5000)
    exif = Picture.Exif()
    exif[0x0112] = 6
    image = scaled(hello, drawn("jpeg", (200, 100), "L", exif=exif), is_async=False)
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_without_pillow_too_many_pixels_are_refused(
    monkeypatch: pytest.MonkeyPatch, fake: FakeLMStudio, kind: str
) -> None:
    """An image of the user is refused with a hint before anything is sent; the model is told about one of a tool."""
    monkeypatch.setattr("lmdeck._requests.images.can_convert", lambda: False)
    big = drawn(kind, WIDE, "L")
    with lm("http://127.0.0.1:1") as client, pytest.raises(InvalidRequestError, match="27600000 pixels") as caught:
        client.chat().user("What?", images=[big])
    assert "lmdeck[images]" in caught.value.hint
    reply = run(fake, big, is_async=False)
    assert "27600000 pixels" in reply.rounds[0].results[0].content


@pytest.mark.parametrize(
    "data",
    [b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + b"x" * 30, b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 99, JPEG[:9]],
)
def test_a_header_that_says_nothing_is_left_to_the_server(hello: FakeLMStudio, data: bytes) -> None:
    """The image is sent unchanged."""
    with lm(hello.base_url) as client:
        assert client.chat().user("What?", images=[data]).send().problems == []


@BOTH
def test_a_refusal_without_a_reason_names_the_images(is_async: bool) -> None:
    """LM Studio answers “Bad Request” and nothing else to an image that it cannot take."""

    def ask(url: str) -> None:
        with lm(url) as client:
            client.chat().user("What?", images=[PNG]).send()

    async def ask_async(url: str) -> None:
        async with alm(url) as client:
            await client.chat().user("What?", images=[PNG]).send()

    with Loopback(json_answer({"error": "Bad Request"}, 400)) as server:
        with pytest.raises(InvalidRequestError) as caught:
            _ = asyncio.run(ask_async(server.url)) if is_async else ask(server.url)
        assert "smaller image" in caught.value.hint
        with lm(server.url) as client, pytest.raises(InvalidRequestError) as plain:
            client.chat().user("What?").send()
    assert "image" not in plain.value.hint


# --- conversations ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_conversation_that_is_replayed_has_its_images(fake: FakeLMStudio, is_async: bool, is_streamed: bool) -> None:
    """The images are sent in their order, each in its own message."""
    said = [("What is it?", [PNG]), ("And this?", [JPEG, PNG]), ("Which is nicer?", [])]

    def ask_sync() -> Any:
        with lm(fake.base_url) as client:
            talk = client.conversation(recover=True)
            for text, images in said:
                stream = talk.stream(text, images=images) if is_streamed else None
                reply = stream.until_done() if stream else talk.send(text, images=images)
            return talk, reply

    async def ask() -> Any:
        async with alm(fake.base_url) as client:
            talk = client.conversation(recover=True)
            for text, images in said:
                stream = talk.stream(text, images=images) if is_streamed else None
                reply = await (stream.until_done() if stream else talk.send(text, images=images))
            return talk, reply

    forgotten = {"error": {"message": "Response resp_1 not found"}}
    fake.reply("A cat.").reply("Dogs.").body(forgotten, status=404).reply("The last.")
    talk, reply = asyncio.run(ask()) if is_async else ask_sync()
    assert reply.content == "The last."
    told, *images, new = fake.requests[-1].body["input"]
    assert told["content"].startswith(
        "Transcript of the conversation so far:\n\nUser: What is it? [image 1]\n\nAssistant: A cat."
    )
    assert "User: And this? [image 2] [image 3]" in told["content"]
    assert [image["data_url"] for image in images] == [uri(PNG), uri(JPEG, "jpeg"), uri(PNG)]
    assert new == {"type": "message", "content": "Which is nicer?"}
    assert len(pictures(talk.history[2].content)) == 2
