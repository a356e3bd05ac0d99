"""`POST /v1/messages`: one message, or Anthropic's events.

Source: LM Studio's docs, `4_anthropic-compat/messages.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck._encoders.blocks import Blocks
from lmdeck._encoders.common import item_id, named_event
from lmdeck._encoders.messages import begin_frame, block_frame, content_block, end_frames
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.errors import failure_body
from lmdeck.server.http_responses import EventStream, ResponseTimer, json_response, with_error_frame
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.messages import messages_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck._encoders.backend_events import StopReason
    from lmdeck._encoders.blocks import BlockEvent
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend, BackendError

_STOP_REASONS: dict[StopReason, str] = {
    "eosFound": "end_turn",
    "stopStringFound": "stop_sequence",
    "toolCalls": "tool_use",
    "maxPredictedTokensReached": "max_tokens",
    "contextLengthReached": "max_tokens",
}


async def answer_message(request: IncomingRequest, backend: Backend) -> Response:
    """Answer one request of `/v1/messages`.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request; nothing has been sent yet.
    """
    job, is_stream = messages_request(await read_body(request), backend.models())
    timer, blocks = ResponseTimer(), Blocks()
    events = timer.events(backend.chat(job))
    head = {"id": item_id("msg"), "type": "message", "role": "assistant", "model": job.model}
    if is_stream:
        return EventStream(with_error_frame(_frames(blocks.read(events), head, timer), _failure))
    await run_until_disconnect(request.receive, blocks.drain(events))
    content = [content_block(block) for block in blocks.all]
    return json_response({**head, "content": content, **_end(timer), "usage": _usage(timer)})


def _end(timer: ResponseTimer) -> dict[str, Any]:
    return {"stop_reason": _STOP_REASONS[timer.finished().stop_reason], "stop_sequence": None}


def _usage(timer: ResponseTimer) -> dict[str, int]:
    end = timer.finished()
    return {"input_tokens": end.prompt_tokens, "output_tokens": end.completion_tokens}


async def _frames(
    events: AsyncGenerator[BlockEvent, None], head: dict[str, Any], timer: ResponseTimer
) -> AsyncGenerator[bytes, None]:
    yield begin_frame(head)
    async for event in events:
        yield block_frame(event)
    yield end_frames(_end(timer), _usage(timer))


def _failure(error: BackendError) -> bytes:
    return named_event("error", failure_body("/v1/messages", error))
