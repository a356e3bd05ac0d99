"""`POST /v1/messages`: Anthropic's message or its events (LM Studio's docs, `4_anthropic-compat/messages.md`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck.server.blocks import Begin, Blocks, End, More
from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response, named_event
from lmdeck.server.delivery import item_id as new_id
from lmdeck.server.refusals import failure_body
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.messages import messages_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.blocks import Block, Told
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
    head = {"id": new_id("msg"), "type": "message", "role": "assistant", "model": job.model}
    if is_stream:
        return EventStream(guarded(_frames(blocks.read(events), head, meter), _failure))
    await attended(request.receive, blocks.drain(events))
    content = [_content(block) for block in blocks.all]
    return json_response({**head, "content": content, **_end(meter), "usage": _usage(meter)})


def _content(block: Block) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text", "text": block.text, "citations": None}
        case "reasoning":
            return {"type": "thinking", "thinking": block.text, "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.arguments}


def _opening(block: Block) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text", "text": ""}
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "call":
            return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}


def _delta(block: Block, text: str) -> dict[str, Any]:
    match block.kind:
        case "text":
            return {"type": "text_delta", "text": text}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": text}
        case "call":
            return {"type": "input_json_delta", "partial_json": text}


def _end(meter: Meter) -> dict[str, Any]:
    return {"stop_reason": _STOP_REASONS[meter.finished().stop_reason], "stop_sequence": None}


def _usage(meter: Meter) -> dict[str, int]:
    end = meter.finished()
    return {"input_tokens": end.prompt_tokens, "output_tokens": end.completion_tokens}


async def _frames(told: AsyncGenerator[Told, None], head: dict[str, Any], meter: Meter) -> AsyncGenerator[bytes, None]:
    begun = {
        **head,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    yield _event("message_start", message=begun)
    async for each in told:
        match each:
            case Begin(block=block):
                yield _event("content_block_start", index=block.index, content_block=_opening(block))
            case More(block=block, text=text):
                yield _event("content_block_delta", index=block.index, delta=_delta(block, text))
            case End(block=block):
                yield _event("content_block_stop", index=block.index)
    yield _event("message_delta", delta=_end(meter), usage=_usage(meter))
    yield _event("message_stop")


def _failure(error: BackendError) -> bytes:
    return named_event("error", failure_body("/v1/messages", error))


def _event(kind: str, **fields: object) -> bytes:
    return named_event(kind, {"type": kind, **fields})
