"""`/v1/completions`: what text chunks and bodies mean, also where they are incomplete or of another type."""

from __future__ import annotations

from typing import Any

import pytest

from endpoint_readers import read, read_body, read_chunks
from lmdeck import APIError, IncompleteStreamError, MalformedStreamError, Usage
from lmdeck._streaming.openai_completions import CompletionTranslator
from lmdeck.native_events import ServerEvent

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def text(text: object, finish: object = None, **more: object) -> dict[str, Any]:
    return {"id": "cmpl-1", "model": "m", "choices": [{"text": text, "index": 0, "finish_reason": finish}], **more}


def test_a_stream_as_documented() -> None:
    """The token counts come last, without a choice."""
    events = [text("It "), text("rains."), text("", "length"), {"choices": [], "usage": USAGE}]
    reply, chunks = read_chunks(CompletionTranslator(), *events, b"[DONE]")
    assert (reply.id, reply.model, reply.content, reply.finish_reason) == ("cmpl-1", "m", "It rains.", "length")
    assert reply.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    assert reply.problems == []
    assert [each.event for each in chunks] == [ServerEvent("", {**event, "type": ""}) for event in events]
    assert [each.content for each in chunks if each.content] == ["It ", "rains."]


def test_a_body_is_read_like_its_stream() -> None:
    reply = read_body(CompletionTranslator(), text("It rains.", "length", usage=USAGE))
    assert (reply.id, reply.model, reply.content, reply.finish_reason) == ("cmpl-1", "m", "It rains.", "length")
    assert reply.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)


@pytest.mark.parametrize(
    ("choices", "index", "content"),
    [
        ([{"text": "It rains"}], 0, "It rains."),
        ([{"text": "It rains", "index": None, "finish_reason": 5}], 0, "It rains."),
        ([{"text": "It rains", "index": 1}], 1, "It rains."),
        ([{"text": None}, 5, {}, {"text": "It rains"}], 0, "It rains."),
        ([{"text": ["It rains"]}], 0, "."),
        ({"text": "It rains"}, 0, "."),
    ],
)
def test_a_chunk_brings_the_text_that_can_be_read(choices: object, index: int, content: str) -> None:
    last = {"text": ".", "index": index, "finish_reason": "stop"}
    reply = read(CompletionTranslator(), {"choices": choices}, {"choices": [last]})
    assert (reply.content, reply.finish_reason, reply.problems) == (content, "stop", [])


def test_only_the_first_choice_counts() -> None:
    body = {"choices": [{"text": "It rains.", "finish_reason": "stop"}, {"text": "It snows.", "index": 1}]}
    reply = read_body(CompletionTranslator(), body)
    assert (reply.content, [problem.code for problem in reply.problems]) == ("It rains.", ["extra_choice"])


@pytest.mark.parametrize("usage", [None, 5, [3], {}])
def test_usage_that_cannot_be_read_costs_no_answer(usage: object) -> None:
    reply = read_body(CompletionTranslator(), text("It rains.", "stop", usage=usage))
    assert (reply.content, reply.usage) == ("It rains.", None)


@pytest.mark.parametrize("choices", [None, [], [5], {"text": "It rains."}, [{"message": {"content": "It rains."}}]])
def test_a_body_without_text_is_no_answer(choices: object) -> None:
    with pytest.raises(MalformedStreamError, match="not an answer of this endpoint"):
        read_body(CompletionTranslator(), {"choices": choices})


@pytest.mark.parametrize(
    "failure",
    [{"error": {"message": "out of memory"}}, {"error": {"message": "out of memory"}, "choices": [{"text": ""}]}],
)
def test_an_event_with_an_error_ends_the_answer(failure: dict[str, Any]) -> None:
    """The error has the text so far, even if the event also has choices."""
    with pytest.raises(APIError, match="out of memory") as caught:
        read(CompletionTranslator(), text("It rains."), failure)
    assert caught.value.partial is not None
    assert caught.value.partial.content == "It rains."


def test_a_stream_without_an_end_was_cut_off() -> None:
    with pytest.raises(IncompleteStreamError, match="without a finish reason") as caught:
        read(CompletionTranslator(), text("It rains."))
    assert caught.value.partial is not None
    assert caught.value.partial.content == "It rains."
