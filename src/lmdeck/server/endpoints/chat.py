"""`/v1/chat/completions` and its twin under `/api/v0`: events in, LM Studio's chunks or its one body out.

The forms are those of captured answers: every text delta repeats the role; a tool call opens with its id and name and empty
arguments, goes on with `"name": ""` and fragments; the last chunk has an empty delta and the finish reason; then, if asked for,
one chunk without choices for the usage; then `[DONE]`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from lmdeck.sansio.sse import encode_event
from lmdeck.server.delivery import (
    DONE,
    EventStream,
    Meter,
    answer_id,
    attended,
    finish_reason,
    guarded,
    json_response,
    usage,
)
from lmdeck.server.events import ReasoningDelta, Said, TextDelta, ToolArgumentsDelta, ToolCallStart
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.chat import chat_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend
    from lmdeck.server.events import Event
    from lmdeck.server.requests.body import Delivery

__all__ = ["answer_chat"]


async def answer_chat(request: Request, backend: Backend) -> Response:
    """Answer one chat completion request.

    Raises:
        Refusal: The request breaks a rule.
        BackendError: The back end cannot answer, and nothing has been sent yet.
    """
    job, delivery = chat_job(await read_body(request), backend.models())
    meter = Meter()
    events = meter.events(backend.chat(job))
    if delivery.stream:
        return EventStream(guarded(_frames(events, job.model, delivery, meter)))
    message = await attended(request.receive, _message(events))
    choice = {
        "index": 0,
        "logprobs": None,
        "finish_reason": finish_reason(meter.finished().stop_reason),
        "message": message,
    }
    head = {"id": answer_id("chatcmpl"), "object": "chat.completion", "created": int(time.time()), "model": job.model}
    return json_response({**head, "choices": [choice], **meter.accounts(backend, job.model)})


async def _frames(
    events: AsyncGenerator[Event, None], model: str, delivery: Delivery, meter: Meter
) -> AsyncGenerator[bytes, None]:
    head = {
        "id": answer_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": model,
    }

    def frame(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return encode_event(msgspec.json.encode({**head, "choices": [choice]}))

    index = -1
    async for event in events:
        if isinstance(event, ToolCallStart):
            index += 1
        if isinstance(event, Said):
            yield frame(_delta(event, index))
    end = meter.finished()
    yield frame({}, finish_reason(end.stop_reason))
    if delivery.include_usage:
        yield encode_event(msgspec.json.encode({**head, "choices": [], "usage": usage(end)}))
    yield DONE


def _delta(event: Said, index: int) -> dict[str, Any]:
    match event:
        case TextDelta(text=text):
            return {"role": "assistant", "content": text}
        case ReasoningDelta(text=text):
            return {"role": "assistant", "reasoning_content": text}
        case ToolCallStart(id=call_id, name=name):
            function = {"name": name, "arguments": ""}
            return {
                "role": "assistant",
                "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}],
            }
        case ToolArgumentsDelta(text=text):
            function = {"name": "", "arguments": text}
            return {"tool_calls": [{"index": index, "type": "function", "function": function}]}
        case _:
            assert_never(event)


async def _message(events: AsyncGenerator[Event, None]) -> dict[str, Any]:
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[ToolCallStart, list[str]]] = []
    async for event in events:
        match event:
            case TextDelta(text=text):
                content.append(text)
            case ReasoningDelta(text=text):
                reasoning.append(text)
            case ToolCallStart():
                calls.append((event, []))
            case ToolArgumentsDelta(text=text):
                calls[-1][1].append(text)
    message: dict[str, Any] = {"role": "assistant"}
    if content or not calls:
        message["content"] = "".join(content)
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(arguments)}}
            for call, arguments in calls
        ]
    return message
