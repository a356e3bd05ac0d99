"""`/v1/completions`, also under `/api/v0`: continue a raw prompt, without a chat template."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lmdeck._encoders.backend_events import TextDelta
from lmdeck._encoders.common import DONE, answer_id, data_event, finish_reason, usage
from lmdeck._encoders.completions import text_choice
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import EventStream, ResponseTimer, json_response, with_error_frame
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.chat import completion_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend
    from lmdeck.server.requests.body import ResponseMode


async def answer_completion(request: IncomingRequest, backend: Backend) -> Response:
    """Answer one text completion request.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request; nothing has been sent yet.
    """
    job, delivery = completion_job(await read_body(request), backend.models())
    head = {"id": answer_id("cmpl"), "object": "text_completion", "created": int(time.time()), "model": job.model}
    timer = ResponseTimer()
    events = timer.events(backend.complete(job))
    if delivery.stream:
        return EventStream(with_error_frame(_frames(events, head, delivery, timer)))
    text = await run_until_disconnect(request.receive, _text(events))
    choice = text_choice(text, finish_reason(timer.finished().stop_reason))
    return json_response({**head, "choices": [choice], **timer.metadata(backend, job.model)})


async def _frames(
    events: AsyncGenerator[BackendEvent, None], head: dict[str, Any], delivery: ResponseMode, timer: ResponseTimer
) -> AsyncGenerator[bytes, None]:
    async for event in events:
        if isinstance(event, TextDelta):
            yield data_event({**head, "choices": [text_choice(event.text)]})
    end = timer.finished()
    yield data_event({**head, "choices": [text_choice("", finish_reason(end.stop_reason))]})
    if delivery.include_usage:
        yield data_event({**head, "choices": [], "usage": usage(end)})
    yield DONE


async def _text(events: AsyncGenerator[BackendEvent, None]) -> str:
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])
