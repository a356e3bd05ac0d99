"""`/v1/chat/completions` and its twin under `/api/v0`: events in, LM Studio's chunks or its one body out.

The chunks end with the finish reason; then, if asked for, one chunk without choices for the usage; then `[DONE]`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response
from lmdeck.server.encoders.chat import call_entry, choice, chunk_frame, delta_of, message_of
from lmdeck.server.encoders.common import DONE, answer_id, data_event, finish_reason, usage
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
    answered = choice("message", message, finish_reason(meter.finished().stop_reason))
    head = {"id": answer_id("chatcmpl"), "object": "chat.completion", "created": int(time.time()), "model": job.model}
    return json_response({**head, "choices": [answered], **meter.accounts(backend, job.model)})


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

    index = -1
    async for event in events:
        if isinstance(event, ToolCallStart):
            index += 1
        if isinstance(event, Said):
            yield chunk_frame(head, delta_of(event, index))
    end = meter.finished()
    yield chunk_frame(head, {}, finish_reason(end.stop_reason))
    if delivery.include_usage:
        yield data_event({**head, "choices": [], "usage": usage(end)})
    yield DONE


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
    entries = [call_entry(call.id, call.name, "".join(arguments)) for call, arguments in calls]
    return message_of("".join(content), "".join(reasoning), entries)
