"""What the engine did wrong is not the caller's fault: every wire format, refused or in a stream, sync and async."""

from __future__ import annotations

import json

import pytest

from lmdeck import (
    AuthenticationError,
    ContextLengthError,
    InvalidRequestError,
    LMStudioError,
    ModelCrashedError,
    ModelLoadError,
    ModelNotFoundError,
    ServerError,
    TemplateError,
)
from loopback import CLOSE, HANG, Loopback, json_answer
from wire_formats import FORMATS, STREAMED, run, stream_of

SAID = "Engine protocol predict request returned {status}: {inner}"


def behind_a_sentence(code: int, message: str, kind: str = "server_error") -> str:
    """Word a refusal as LM Studio quotes its llama-server's."""
    return SAID.format(status=code, inner=json.dumps({"error": {"code": code, "message": message, "type": kind}}))


WORDS: dict[str, tuple[str, type[LMStudioError]]] = {
    "inner 500": (behind_a_sentence(500, "A thing that nobody has words for"), ServerError),
    "inner 503": (behind_a_sentence(503, "Busy with something", "unavailable_error"), ServerError),
    "inner 400": (behind_a_sentence(400, "A field that nobody knows", "invalid_request_error"), InvalidRequestError),
    "inner 401": (behind_a_sentence(401, "Who is there?", ""), AuthenticationError),
    "inner grammar": (behind_a_sentence(400, "failed to parse grammar"), InvalidRequestError),
    "inner overflow": (
        behind_a_sentence(400, "request (9 tokens) exceeds the available context size (4 tokens)", "exceed_context_size_error"),
        ContextLengthError,
    ),
    "no code": ('Engine protocol predict stream returned an error: {"message": "It tipped over"}', ServerError),
    "no JSON": ("Engine protocol predict request returned 500: it tipped over", ServerError),
    "text behind": (f"{behind_a_sentence(500, 'It tipped over')} (worker 3)", ServerError),
    "fetch": ("Engine protocol predict request failed: fetch failed", ServerError),
    "prediction": ("received prediction-error", ServerError),
    "format": ("The model produced output that does not match the expected peg-native format", ServerError),
    "shapes": ("ValueError: [broadcast_shapes] Shapes (1,4) and (1,3) cannot be broadcast.", ServerError),
    "healthy": ("Engine protocol runtime llama-server for x exited before becoming healthy. exitCode=1", ModelLoadError),
    "resources": ("Attempt to pull a snapshot of system resources failed", ModelLoadError),
    "find": ('Cannot find model "a/b"', ModelNotFoundError),
    "exist": ("Model does not exist", ModelNotFoundError),
    "history": ("Prediction history node with id 'resp_1' not found in shard 'pack-0001'", ServerError),
    "worker": ("The engine process has exited", ModelCrashedError),
    "vision": ("Error: Model does not support images. Please use a model that does. - Caused By: Error: Channel Error",
               InvalidRequestError),
    "llama.cpp's vision": ("image input is not supported - hint: you may need to provide the mmproj", InvalidRequestError),
    "roles": (behind_a_sentence(500, "Jinja Exception: Conversation roles must alternate user/assistant"), TemplateError),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_is_what_its_words_mean(name: str, is_async: bool, status: int) -> None:
    """The words decide the error's class, whatever status the refusal has."""
    form = FORMATS[name]
    for words, kind in WORDS.values():
        bodies = ({"error": words}, {"error": {"message": words, "type": "internal_error" if status > 400 else None}})
        for body in bodies:
            with Loopback(routes={form.path: json_answer(body, status)}) as server:
                error = run(server.url, form, is_async=is_async, stream=False).error
            assert type(error) is kind, words


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("writes", [1, 2])
def test_an_error_event_is_what_its_words_mean_and_keeps_the_text_before_it(
    name: str, is_async: bool, writes: int
) -> None:
    """In one write or in two, the text is handed on, the error carries it, and nothing is asked again."""
    form = FORMATS[name]
    assert form.words is not None
    assert form.failure is not None
    for words, kind in {**WORDS, "unknown": ("Something odd came up", ServerError)}.values():
        text, failure = stream_of(*form.words("One "), *form.words("two ")), stream_of(form.failure(words))
        failure = failure.partition(b"\r\n\r\n")[2].replace(b"event: message", b"event: error")
        steps = [text + failure, CLOSE] if writes == 1 else [text, 0.02, failure, CLOSE]
        with Loopback(steps) as server:
            outcome = run(server.url, form, is_async=is_async, stream=True, retry_attempts=3)
            assert len(server.requests) == 1, words
        assert type(outcome.error) is kind, words
        assert "".join(chunk.content for chunk in outcome.chunks) == "One two ", words
        assert outcome.error is not None
        assert outcome.error.partial is not None
        assert outcome.error.partial.content == "One two", words


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("ends", ["closed", "silent", "error event"])
def test_an_error_has_the_text_that_could_still_become_markup(name: str, is_async: bool, ends: str) -> None:
    """The parser holds `<|chan` back until it is certain; the answer fails before."""
    form = FORMATS[name]
    assert form.words is not None
    assert form.failure is not None
    text, failure = stream_of(*form.words("One "), *form.words("<|chan")), stream_of(form.failure("It tipped over"))
    last = {"closed": [CLOSE], "silent": [HANG], "error event": [failure.partition(b"\r\n\r\n")[2], CLOSE]}
    with Loopback([text, *last[ends]]) as server:
        settings = {"timeout": 0.1} if ends == "silent" else {}
        error = run(server.url, form, is_async=is_async, stream=True, **settings).error
    assert error is not None
    assert error.partial is not None
    assert error.partial.content == "One <|chan"


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_error_event_before_anything_is_tried_again_where_it_may_pass(name: str, is_async: bool) -> None:
    """An engine's failure is, a wrong request is not."""
    form = FORMATS[name]
    assert form.failure is not None
    for words, sent in (("fetch failed", 2), ("Cannot find model 'x'", 1)):
        events = stream_of(form.failure(words)).replace(b"event: message", b"event: error")
        with Loopback([events, CLOSE]) as server:
            outcome = run(server.url, form, is_async=is_async, stream=True, retry_attempts=2)
            assert len(server.requests) == sent
        assert isinstance(outcome.error, LMStudioError)
        assert outcome.error.attempts == sent


def test_the_counts_of_an_inner_overflow_are_read() -> None:
    """How long the prompt is and what the model holds."""
    words, _ = WORDS["inner overflow"]
    with Loopback(json_answer({"error": words}, 500)) as server:
        error = run(server.url, FORMATS["chat"], is_async=False, stream=False).error
    assert isinstance(error, ContextLengthError)
    assert (error.prompt_tokens, error.context_length) == (9, 4)
    assert "Engine protocol predict request returned 400: request (9 tokens)" in error.message
