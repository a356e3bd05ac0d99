"""`POST /v1/responses`: one response object, or OpenAI's events.

Source: LM Studio's docs, `3_openai-compat/responses.md`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._encoders.common import finish_reason, item_id
from lmdeck._encoders.responses import ResponseEncoder
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import EventStream, ResponseTimer, json_response, with_error_frame
from lmdeck.server.jobs import ChatMessage
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.responses import response_request
from lmdeck.server.stored import blocks_to_messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from lmdeck._encoders.blocks import BlockEvent
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.requests.responses import ResponseRequest
    from lmdeck.server.stored import StoredResponses


async def answer_response(request: IncomingRequest, backend: Backend, stored: StoredResponses) -> Response:
    """Answer one request of `/v1/responses`.

    Raises:
        Refusal: The request is invalid, or continues an unknown response.
        BackendError: The back end refuses the request; nothing has been sent yet.
    """
    parsed = response_request(await read_body(request), backend.models())
    messages = (*stored.history(parsed.previous), *parsed.job.messages)
    # OpenAI: instructions apply to this response only
    system = () if parsed.instructions is None else (ChatMessage(role="system", text=parsed.instructions),)
    timer = ResponseTimer()
    answer = _ResponseBuilder(parsed, messages, stored, timer)
    job = msgspec.structs.replace(parsed.job, messages=(*system, *messages))
    events = answer.encoder.blocks.read(timer.events(backend.chat(job)))
    if parsed.stream:
        return EventStream(with_error_frame(answer.frames(events), answer.failure))
    await run_until_disconnect(request.receive, _drain(events))
    return json_response(answer.response())


async def _drain(events: AsyncGenerator[BlockEvent, None]) -> None:
    """Read all events of a response that is sent as one body."""
    async for _ in events:
        continue


class _ResponseBuilder:
    """The response to one request, built while its events are read."""

    def __init__(
        self, parsed: ResponseRequest, messages: tuple[ChatMessage, ...], stored: StoredResponses, timer: ResponseTimer
    ) -> None:
        self.encoder = ResponseEncoder(_template(parsed))
        self._parsed = parsed
        self._messages = messages
        self._stored = stored
        self._timer = timer

    async def frames(self, events: AsyncGenerator[BlockEvent, None]) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream."""
        yield self.encoder.begin()
        async for event in events:
            yield self.encoder.frames(event)
        yield self.encoder.end(self.response())

    def failure(self, error: BackendError) -> bytes:
        """Return the last event of a failed response."""
        return self.encoder.failure(error.code or "server_error", error.message)

    def response(self) -> dict[str, Any]:
        """Return the whole response, and store it if the request asks for that."""
        end = self._timer.finished()
        is_cut = finish_reason(end.stop_reason) == "length"
        body = self.encoder.body("incomplete" if is_cut else "completed")
        if is_cut:
            body["incomplete_details"] = {"reason": "max_output_tokens"}
        body["usage"] = {
            "input_tokens": end.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": end.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": end.reasoning_tokens},
            "total_tokens": end.prompt_tokens + end.completion_tokens,
        }
        if self._parsed.store:
            self._stored.add([*self._messages, *blocks_to_messages(self.encoder.blocks.all)], body["id"])
        return body


def _template(parsed: ResponseRequest) -> dict[str, Any]:
    """Return the constant fields of the response object."""
    job = parsed.job
    tools = [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": False,
        }
        for tool in job.tools
    ]
    return {
        "id": item_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": parsed.instructions,
        "max_output_tokens": job.sampling.max_tokens,
        "model": job.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": parsed.previous,
        "reasoning": {"effort": job.reasoning, "summary": None},
        "store": parsed.store,
        "temperature": job.sampling.temperature,
        "text": {"format": {"type": "text" if job.json_schema is None else "json_schema"}},
        "tool_choice": job.tool_choice,
        "tools": tools,
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }
