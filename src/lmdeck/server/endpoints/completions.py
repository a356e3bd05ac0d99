"""`/v1/completions` and its twin under `/api/v0`: a raw prompt goes on, with no template around it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response
from lmdeck.server.encoders.common import DONE, answer_id, data_event, finish_reason, usage
from lmdeck.server.encoders.completions import text_choice
from lmdeck.server.events import TextDelta
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.chat import completion_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend
    from lmdeck.server.events import Event
    from lmdeck.server.requests.body import Delivery

__all__ = ["answer_completion"]


async def answer_completion(request: Request, backend: Backend) -> Response:
    """Answer one text completion request.

    Raises:
        Refusal: The request breaks a rule.
        BackendError: The back end cannot answer, and nothing has been sent yet.
    """
    job, delivery = completion_job(await read_body(request), backend.models())
    head = {"id": answer_id("cmpl"), "object": "text_completion", "created": int(time.time()), "model": job.model}
    meter = Meter()
    events = meter.events(backend.complete(job))
    if delivery.stream:
        return EventStream(guarded(_frames(events, head, delivery, meter)))
    text = await attended(request.receive, _text(events))
    choice = text_choice(text, finish_reason(meter.finished().stop_reason))
    return json_response({**head, "choices": [choice], **meter.accounts(backend, job.model)})


async def _frames(
    events: AsyncGenerator[Event, None], head: dict[str, Any], delivery: Delivery, meter: Meter
) -> AsyncGenerator[bytes, None]:
    async for event in events:
        if isinstance(event, TextDelta):
            yield data_event({**head, "choices": [text_choice(event.text)]})
    end = meter.finished()
    yield data_event({**head, "choices": [text_choice("", finish_reason(end.stop_reason))]})
    if delivery.include_usage:
        yield data_event({**head, "choices": [], "usage": usage(end)})
    yield DONE


async def _text(events: AsyncGenerator[Event, None]) -> str:
    return "".join([event.text async for event in events if isinstance(event, TextDelta)])
