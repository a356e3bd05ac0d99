"""`/v1/chat/completions`, also under `/api/v0`: a stream of LM Studio's chunks, or one body.

A stream ends with the finish reason; then, if requested, a chunk without choices for the usage; then `[DONE]`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lmdeck._encoders.backend_events import (
    ModelOutput,
    ReasoningTextDelta,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallOpened,
)
from lmdeck._encoders.chat import call_entry, choice, chunk_frame, delta_of, message_of
from lmdeck._encoders.common import DONE, answer_id, data_event, finish_reason, usage
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import EventStream, ResponseTimer, json_response, with_error_frame
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.chat import chat_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend
    from lmdeck.server.requests.body import ResponseMode


async def answer_chat(request: IncomingRequest, backend: Backend) -> Response:
    """Answer one chat completion request.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request; nothing has been sent yet.
    """
    job, delivery = chat_job(await read_body(request), backend.models())
    timer = ResponseTimer()
    events = timer.events(backend.chat(job))
    if delivery.stream:
        return EventStream(with_error_frame(_frames(events, job.model, delivery, timer)))
    message = await run_until_disconnect(request.receive, _message(events))
    entry = choice("message", message, finish_reason(timer.finished().stop_reason))
    head = {"id": answer_id("chatcmpl"), "object": "chat.completion", "created": int(time.time()), "model": job.model}
    return json_response({**head, "choices": [entry], **timer.metadata(backend, job.model)})


async def _frames(
    events: AsyncGenerator[BackendEvent, None], model: str, delivery: ResponseMode, timer: ResponseTimer
) -> AsyncGenerator[bytes, None]:
    head = {
        "id": answer_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": model,
    }

    index = -1
    async for event in events:
        if isinstance(event, ToolCallOpened):
            index += 1
        if isinstance(event, ModelOutput):
            yield chunk_frame(head, delta_of(event, index))
    end = timer.finished()
    yield chunk_frame(head, {}, finish_reason(end.stop_reason))
    if delivery.include_usage:
        yield data_event({**head, "choices": [], "usage": usage(end)})
    yield DONE


async def _message(events: AsyncGenerator[BackendEvent, None]) -> dict[str, Any]:
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[ToolCallOpened, list[str]]] = []
    async for event in events:
        match event:
            case TextDelta(text=text):
                content.append(text)
            case ReasoningTextDelta(text=text):
                reasoning.append(text)
            case ToolCallOpened():
                calls.append((event, []))
            case ToolArgumentsDelta(text=text):
                calls[-1][1].append(text)
    entries = [call_entry(call.id, call.name, "".join(arguments)) for call, arguments in calls]
    return message_of("".join(content), "".join(reasoning), entries)
