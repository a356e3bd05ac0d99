"""While a tool call is written or run, a server may be silent for longer than between two words."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from lmdeck import AsyncLMStudio, LMStudio, RequestTimeoutError
from loopback import CLOSE, HANG, PATIENCE, Loopback
from wire_formats import FORMATS, run, stream_of

SILENCE = 0.3
IDLE = 0.15
ARGUMENTS = '{"city": "Paris"}'


def chat_delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """Return a chunk of a chat."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "choices": [choice]}


def call_delta(**function: str) -> dict[str, Any]:
    """Return a delta of a native call."""
    return {"tool_calls": [{"index": 0, "id": "c1", "function": function}]}


ITEM = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look"}
DONE_ITEM = {**ITEM, "arguments": ARGUMENTS}
MCP = {"type": "mcp_call", "id": "mcp_1", "name": "look", "arguments": ARGUMENTS, "output": "sun"}
TEXT = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Sun."}]}
# What comes before the silence, and what after it.
STREAMS: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "chat": (
        "chat",
        [chat_delta(call_delta(name="look", arguments=""))],
        [chat_delta(call_delta(arguments=ARGUMENTS)), chat_delta({}, "tool_calls")],
    ),
    "responses": (
        "responses",
        [{"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "arguments": ""}}],
        [
            {"type": "response.output_item.done", "output_index": 0, "item": DONE_ITEM},
            {"type": "response.completed", "response": {"status": "completed", "output": [DONE_ITEM]}},
        ],
    ),
    "responses, mcp": (
        "responses",
        [{"type": "response.output_item.added", "output_index": 0, "item": {**MCP, "output": None}}],
        [
            {"type": "response.output_item.done", "output_index": 0, "item": MCP},
            {"type": "response.completed", "response": {"status": "completed", "output": [MCP, TEXT]}},
        ],
    ),
    "messages": (
        "messages",
        [
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "tool_use", "id": "c1", "name": "look"},
            }
        ],
        [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": ARGUMENTS},
            },
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
            {"type": "message_stop"},
        ],
    ),
    "messages, mcp": (
        "messages",
        [
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "mcp_tool_use", "id": "c1", "name": "look"},
            },
            {"type": "content_block_stop", "index": 0},
        ],
        [
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "Sun."}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ],
    ),
    "conversation": (
        "conversation",
        [{"type": "tool_call.start", "tool": "look"}, {"type": "tool_call.name", "tool_name": "look"}],
        [
            {"type": "tool_call.arguments", "tool": "look", "arguments": {"city": "Paris"}},
            {"type": "tool_call.success", "tool": "look", "arguments": {"city": "Paris"}, "output": "sun"},
            {"type": "message.delta", "content": "Sun."},
            {"type": "chat.end", "result": {"output": [], "stats": {}}},
        ],
    ),
}


def ask(name: str, silence: Any, *, is_async: bool, first_token: float) -> Any:
    """Ask a server that is silent in a call."""
    form, before, after = STREAMS[name]
    tail = stream_of(*after).partition(b"\r\n\r\n")[2]
    with Loopback([stream_of(*before), silence, tail, CLOSE]) as server:
        return run(
            server.url, FORMATS[form], is_async=is_async, stream=True, timeout=IDLE, first_token_timeout=first_token
        )


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_silence_within_a_call_is_as_patient_as_that_before_the_first_word(name: str, is_async: bool) -> None:
    """LM Studio sends the arguments of a call in one piece, after minutes (lmstudio-bug-tracker #1868, #1881)."""
    outcome = ask(name, SILENCE, is_async=is_async, first_token=PATIENCE)
    assert outcome.error is None
    assert outcome.value.tool_calls or outcome.value.content == "Sun."


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_it_is_not_patient_for_ever(is_async: bool) -> None:
    """The limit that ran out is named."""
    error = ask("chat", HANG, is_async=is_async, first_token=2.0).error
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("idle", 2.0)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_silence_between_words_is_none_of_it(is_async: bool) -> None:
    """There the shorter limit holds."""
    with Loopback([stream_of(chat_delta({"content": "One"})), HANG]) as server:
        error = run(
            server.url, FORMATS["chat"], is_async=is_async, stream=True, timeout=IDLE, first_token_timeout=PATIENCE
        ).error
    assert isinstance(error, RequestTimeoutError)
    assert (error.phase, error.seconds) == ("idle", IDLE)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_slow_consumer_is_no_silence(is_async: bool) -> None:
    """The limit counts while the client waits for the server, not while the caller works on a chunk."""
    limit = 0.6  # the server needs far less, and the caller twice as long

    async def consume(url: str) -> list[str]:
        pieces = []
        async with AsyncLMStudio(base_url=url, timeout=limit) as client:
            async for chunk in client.chat("m").user("Hi").stream():
                pieces.append(chunk.content)
                await asyncio.sleep(2 * limit if len(pieces) == 1 else 0)
        return pieces

    def consume_blocking(url: str) -> list[str]:
        pieces = []
        with LMStudio(base_url=url, timeout=limit) as client:
            for chunk in client.chat("m").user("Hi").stream():
                pieces.append(chunk.content)
                time.sleep(2 * limit if len(pieces) == 1 else 0)
        return pieces

    rest = stream_of(chat_delta({"content": "two."}), chat_delta({}, "stop")).partition(b"\r\n\r\n")[2]
    with Loopback([stream_of(chat_delta({"content": "One "})), 0.05, rest, CLOSE]) as server:
        pieces = asyncio.run(consume(server.url)) if is_async else consume_blocking(server.url)
    assert "".join(pieces) == "One two."
