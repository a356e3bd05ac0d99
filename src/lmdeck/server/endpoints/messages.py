"""`POST /v1/messages`: Anthropic's message or its events (LM Studio's docs, `4_anthropic-compat/messages.md`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.blocks import Blocks
from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response
from lmdeck.server.encoders.common import item_id, named_event
from lmdeck.server.encoders.messages import begin_frame, block_frame, content_block, end_frames
from lmdeck.server.errors import failure_body
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.messages import messages_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.blocks import Told
    from lmdeck.server.events import StopReason

__all__ = ["answer_message"]

_STOP_REASONS: dict[StopReason, str] = {
    "eosFound": "end_turn",
    "stopStringFound": "stop_sequence",
    "toolCalls": "tool_use",
    "maxPredictedTokensReached": "max_tokens",
    "contextLengthReached": "max_tokens",
}


async def answer_message(request: Request, backend: Backend) -> Response:
    """Answer one request of `/v1/messages`.

    Raises:
        Refusal: The request breaks a rule.
        BackendError: The back end cannot answer, and nothing has been sent yet.
    """
    job, is_stream = messages_request(await read_body(request), backend.models())
    meter, blocks = Meter(), Blocks()
    events = meter.events(backend.chat(job))
    head = {"id": item_id("msg"), "type": "message", "role": "assistant", "model": job.model}
    if is_stream:
        return EventStream(guarded(_frames(blocks.read(events), head, meter), _failure))
    await attended(request.receive, blocks.drain(events))
    content = [content_block(block) for block in blocks.all]
    return json_response({**head, "content": content, **_end(meter), "usage": _usage(meter)})


def _end(meter: Meter) -> dict[str, Any]:
    return {"stop_reason": _STOP_REASONS[meter.finished().stop_reason], "stop_sequence": None}


def _usage(meter: Meter) -> dict[str, int]:
    end = meter.finished()
    return {"input_tokens": end.prompt_tokens, "output_tokens": end.completion_tokens}


async def _frames(told: AsyncGenerator[Told, None], head: dict[str, Any], meter: Meter) -> AsyncGenerator[bytes, None]:
    yield begin_frame(head)
    async for each in told:
        yield block_frame(each)
    yield end_frames(_end(meter), _usage(meter))


def _failure(error: BackendError) -> bytes:
    return named_event("error", failure_body("/v1/messages", error))
