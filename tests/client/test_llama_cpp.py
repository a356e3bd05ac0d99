"""llama.cpp's server as the far end: what a real one said, recorded (build b1-7e4c0a9), and a real one where it can be had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import alm, lm
from llama_cpp import Launch
from lmdeck import (
    AuthenticationError,
    ContextLengthError,
    EndpointNotFoundError,
    InvalidRequestError,
    LMStudioError,
    Reply,
    RequestTimeoutError,
    ServerError,
)
from loopback import HANG, Answer, Loopback, Request, json_answer, text_answer

RECORDED = json.loads((Path(__file__).parent / "llama_cpp.json").read_text(encoding="utf-8"))
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000000800000008010000000037b1d6260000000b49444154789c6360400100000200014a19f88200000000"
    "49454e44ae426082"
)
QUESTION = "Say hello to Bob."
IS_ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def recorded(name: str) -> Any:
    """Return an answer as it was recorded."""
    said = RECORDED[name]
    return text_answer(said["body"], said["status"], content_type=said["type"], server="llama.cpp")


def reply_to(request: Request) -> Any:
    """Answer as the real server answered the same request."""
    text = request.body.decode()
    kind = {"/v1/chat/completions": "chat", "/v1/responses": "responses", "/v1/messages": "messages"}.get(request.path)
    if kind is None:
        names = {
            "/v1/models": "models",
            "/props": "props",
            "/v1/completions": "completion",
            "/v1/embeddings": "embed_off",
        }
        return recorded(names.get(request.path, "native"))
    if "image" in text:
        return recorded(f"{kind}_image")
    if "previous_response_id" in text:
        return recorded("responses_previous")
    if len(text) > 9000:
        return recorded("overflow")
    return recorded(f"{kind}_stream" if '"stream":true' in text else kind)


@pytest.fixture(params=["recorded-sync", "recorded-async", pytest.param("real", marks=pytest.mark.engine)])
def far_end(request: pytest.FixtureRequest) -> Iterator[tuple[str, bool]]:
    """The address of a server that answers as recorded, or of a real one; and whether to ask it with the async client."""
    if request.param == "real":
        yield request.getfixturevalue("llama_url"), False
        return
    with Loopback(reply_to) as server:
        yield server.url, request.param == "recorded-async"


def asked(url: str, call: Any, *, is_async: bool, **settings: Any) -> Any:
    """Ask with a new client that is as patient as a busy machine needs."""
    patient = {"model": None, "timeout": 120.0, "first_token_timeout": 240.0, "retry_attempts": 3, **settings}

    async def ask_async() -> Any:
        async with alm(url, **patient) as client:
            return await call(client)

    if is_async:
        return asyncio.run(ask_async())
    with lm(url, **patient) as client:
        return call(client)


def refused(url: str, call: Any, *, is_async: bool, **settings: Any) -> LMStudioError:
    """Ask for what cannot be, and return the error."""
    with pytest.raises(LMStudioError) as caught:
        asked(url, call, is_async=is_async, **settings)
    assert "LM Studio" not in caught.value.hint
    assert caught.value.attempts == 1
    return caught.value


def test_what_it_holds_is_known(far_end: tuple[str, bool]) -> None:
    """Its one model is loaded, with its context, its length of training, and its size."""
    url, is_async = far_end
    (model,) = asked(url, lambda client: client.models.loaded(), is_async=is_async)
    assert model.key.endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert (model.instances[0].context_length, model.max_context_length) == (1024, 8192)
    assert (model.quantization, model.format, model.params) == ("Q4_1", "gguf", "0.1B")
    assert model.size_bytes == 96_576_768
    health = asked(url, lambda client: client.health(), is_async=is_async)
    assert (health.product, health.api, health.models_loaded) == ("llama.cpp", "openai", [model.key])
    assert health.version
    loaded = asked(url, lambda client: client.models.ensure_loaded(model.key), is_async=is_async)
    assert (loaded.instance_id, loaded.already_loaded) == (model.key, True)


def timings(reply: Reply) -> dict[str, Any]:
    """Return what the server itself said of the time."""
    last = reply.raw[-1] if isinstance(reply.raw, list) else reply.raw
    found: dict[str, Any] = json.loads(bytes(last))["timings"]
    return found


ASKS: dict[str, Any] = {
    "chat": lambda client: client.chat().user(QUESTION).with_options(max_tokens=8, temperature=0).send(),
    "chat stream": lambda client: (
        client.chat().user(QUESTION).with_options(max_tokens=8, temperature=0).stream().until_done()
    ),
    "responses stream": lambda client: client.responses.stream(
        input=QUESTION, max_output_tokens=8, temperature=0
    ).until_done(),
}


@pytest.mark.parametrize("name", ASKS)
def test_its_own_times_are_the_stats(far_end: tuple[str, bool], name: str) -> None:
    """The stats have the speed and the times that llama.cpp measured, and the cached tokens."""
    url, is_async = far_end
    reply = asked(url, ASKS[name], is_async=is_async)
    said = timings(reply)
    assert reply.content
    assert reply.stats.tokens_per_second == pytest.approx(said["predicted_per_second"])
    assert reply.stats.generation_time == pytest.approx(said["predicted_ms"] / 1000)
    assert reply.stats.time_to_first_token == pytest.approx(said["prompt_ms"] / 1000)
    assert reply.usage.prompt_tokens == 35
    assert reply.usage.cached_tokens is not None
    assert reply.problems == []


def test_a_stream_of_responses_comes_once(far_end: tuple[str, bool]) -> None:
    """Its events have an `item_id` and no `output_index`; the last one holds everything once more."""
    url, is_async = far_end
    reply = asked(url, ASKS["responses stream"], is_async=is_async)
    whole = json.loads(reply.raw[-1])["response"]["output"]
    assert reply.content == "".join(part["text"] for item in whole for part in item["content"]).strip()


def test_messages_count_what_was_cached_as_read(far_end: tuple[str, bool]) -> None:
    """Anthropic's API counts it beside `input_tokens`."""
    url, is_async = far_end

    def ask(client: Any) -> Any:
        return client.messages.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], max_tokens=8, temperature=0
        )

    reply = asked(url, ask, is_async=is_async)
    assert reply.usage.prompt_tokens == 35
    assert reply.usage.cached_tokens is not None


def test_a_completion_has_its_times(far_end: tuple[str, bool]) -> None:
    """A completion has the same figures as a chat."""
    url, is_async = far_end
    completion = asked(url, lambda client: client.complete("Hello", max_tokens=4, temperature=0), is_async=is_async)
    assert completion.stats.tokens_per_second == pytest.approx(completion.raw["timings"]["predicted_per_second"])
    assert completion.usage.cached_tokens == completion.raw["timings"]["cache_n"]


IMAGE_URL = "data:image/png;base64,iVBORw0KGgo="
IMAGES: dict[str, Any] = {
    "chat": lambda client: client.chat("m").user("What?", images=[PNG]).send(),
    "responses": lambda client: client.responses.create(
        model="m",
        input=[{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE_URL}]}],
    ),
    "messages": lambda client: client.messages.create(
        model="m",
        max_tokens=8,
        messages=[
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
            ]}
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_refused_once_by_a_model_without_vision(far_end: tuple[str, bool], name: str) -> None:
    """It says 500, and means that no trying helps."""
    url, is_async = far_end
    error = refused(url, IMAGES[name], is_async=is_async)
    assert isinstance(error, InvalidRequestError)
    assert "accepts images" in error.hint


def test_a_prompt_that_does_not_fit_is_counted(far_end: tuple[str, bool]) -> None:
    """The error has the prompt's size in tokens."""
    url, is_async = far_end
    error = refused(url, lambda client: client.chat("m").user("word " * 3000).send(), is_async=is_async)
    assert isinstance(error, ContextLengthError)
    assert (error.prompt_tokens, error.context_length) == (3031, 1024)


def test_the_error_names_what_llama_cpp_cannot_do(far_end: tuple[str, bool]) -> None:
    """The message names the product, not LM Studio or the age of its version."""
    url, is_async = far_end
    error = refused(
        url,
        lambda client: client.responses.create(model="m", input="x", previous_response_id="resp_1"),
        is_async=is_async,
    )
    assert isinstance(error, InvalidRequestError)
    assert "does not store answers" in error.hint
    for call in (
        lambda client: client.conversation("m").send("Hi"),
        lambda client: client.models.load("other"),
        lambda client: client.models.unload("other"),
        lambda client: client.models.download("other"),
    ):
        error = refused(url, call, is_async=is_async)
        assert isinstance(error, EndpointNotFoundError)
        assert "llama.cpp" in error.hint


def test_embeddings_that_were_not_turned_on_are_asked_for_once(far_end: tuple[str, bool]) -> None:
    """The hint says how to turn them on."""
    url, is_async = far_end
    error = refused(url, lambda client: client.embed("a"), is_async=is_async)
    assert isinstance(error, InvalidRequestError)
    assert "--embeddings" in error.hint


# --- a server for embeddings ---


@pytest.fixture(params=["recorded", pytest.param("real", marks=pytest.mark.engine)])
def embedding_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that embeds, in batches of 64 tokens at most."""
    if request.param == "real":
        launch: Launch = request.getfixturevalue("launch_llama")
        options = (
            "--embeddings",
            "--pooling",
            "mean",
            "--ubatch-size",
            "64",
            "--batch-size",
            "64",
            "--ctx-size",
            "1024",
        )
        with launch(*options) as address:
            yield address
        return

    def answer(request: Request) -> Any:
        if request.path != "/v1/embeddings":
            return reply_to(request)
        return recorded("embed_long" if len(request.body) > 500 else "embed_ok")

    with Loopback(answer) as server:
        yield server.url


def test_its_one_model_embeds_without_a_name(embedding_url: str) -> None:
    """A text longer than its batch is one that does not fit, with both counts."""
    embedded = asked(embedding_url, lambda client: client.embed("a"), is_async=False)
    assert embedded.vectors[0]
    assert embedded.usage.prompt_tokens == 1
    error = refused(embedding_url, lambda client: client.embed("word " * 200), is_async=True)
    assert isinstance(error, ContextLengthError)
    assert (error.prompt_tokens, error.context_length) == (201, 64)
    assert "--ubatch-size" in error.hint


# --- while it loads ---

LOADING = recorded("loading_chat")
WAITING: dict[str, tuple[str, Any]] = {
    "send": ("/v1/chat/completions", lambda client: client.chat("m").user("Hi").send()),
    "list": ("/v1/models", lambda client: client.models.list()),
    "embed": ("/v1/embeddings", lambda client: client.embed("a", model="m")),
    "responses": ("/v1/responses", lambda client: client.responses.create(model="m", input="Hi")),
}
READY = {"send": "chat", "list": "models", "embed": "embed_ok", "responses": "responses"}


@pytest.mark.parametrize("name", WAITING)
@IS_ASYNC
def test_a_model_that_loads_is_waited_for(name: str, is_async: bool) -> None:
    """The wait is longer than the attempts would last, and uses up none of them."""
    path, call = WAITING[name]
    answers: list[Answer] = [LOADING] * 4 + [recorded(READY[name])]
    count = iter(range(100))
    routes: dict[str, Answer] = {path: lambda _: answers[min(next(count), 4)]}
    with Loopback(json_answer({"error": "no"}, 404), routes=routes) as server:
        assert asked(server.url, call, is_async=is_async, retry_attempts=1)
        assert sum(request.path == path for request in server.requests) == 5


@pytest.mark.parametrize("name", WAITING)
@IS_ASYNC
def test_a_model_that_loads_for_ever_is_not(name: str, is_async: bool) -> None:
    """`first_token_timeout` bounds the wait, or `total_timeout`; the hint says what it was."""
    path, call = WAITING[name]
    for settings in ({"first_token_timeout": 1.0}, {"total_timeout": 1.0}):
        with Loopback(json_answer({"error": "no"}, 404), routes={path: LOADING}) as server:
            with pytest.raises((ServerError, RequestTimeoutError)) as caught:  # before a request, or during one
                asked(server.url, call, is_async=is_async, **settings)
            assert len(server.requests) > 1
        assert "still loading" in caught.value.hint


@IS_ASYNC
def test_silence_after_loading_is_reported_as_loading(is_async: bool) -> None:
    answers: list[Answer] = [LOADING, [HANG]]
    count = iter(range(100))
    path, call = WAITING["send"]
    routes: dict[str, Answer] = {path: lambda _: answers[min(next(count), 1)]}
    with (
        Loopback(json_answer({"error": "no"}, 404), routes=routes) as server,
        pytest.raises(RequestTimeoutError) as caught,
    ):
        asked(server.url, call, is_async=is_async, first_token_timeout=1.0, retry_attempts=1)
    assert "still loading" in caught.value.hint


@IS_ASYNC
def test_health_does_not_wait(is_async: bool) -> None:
    """It says how the server is now, and which it is."""
    with Loopback(LOADING) as server:
        health = asked(server.url, lambda client: client.health(), is_async=is_async)
        assert len(server.requests) == 1
    assert (health.reachable, health.product) == (True, "llama.cpp")
    assert isinstance(health.error, ServerError)


@IS_ASYNC
def test_a_key_that_is_missing_leaves_the_product_known(is_async: bool) -> None:
    """Its name is on the refusal."""
    with Loopback(recorded("no_key_chat")) as server:
        health = asked(server.url, lambda client: client.health(), is_async=is_async)
    assert health.product == "llama.cpp"
    assert isinstance(health.error, AuthenticationError)
    assert "llama.cpp" in health.error.hint


@pytest.mark.engine
def test_a_real_server_is_waited_for_from_its_start(launch_llama: Launch) -> None:
    """The client waits for a server that listens at once and loads its model for seconds."""
    with launch_llama("--ctx-size", "512", "--jinja") as url:
        reply = asked(url, ASKS["chat stream"], is_async=True, retry_attempts=1)
    assert reply.content
