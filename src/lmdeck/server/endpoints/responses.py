"""`POST /v1/responses`: OpenAI's response object or its events (LM Studio's docs, `3_openai-compat/responses.md`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response
from lmdeck.server.encoders.common import finish_reason, item_id
from lmdeck.server.encoders.responses import ResponseEncoder
from lmdeck.server.jobs import ChatMessage
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.responses import response_request
from lmdeck.server.stored import spoken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.blocks import Told
    from lmdeck.server.requests.responses import ResponseRequest
    from lmdeck.server.stored import StoredAnswers

__all__ = ["answer_response"]


async def answer_response(request: Request, backend: Backend, stored: StoredAnswers) -> Response:
    """Answer one request of `/v1/responses`.

    Raises:
        Refusal: The request breaks a rule, or continues an answer that is not known.
        BackendError: The back end cannot answer, and nothing has been sent yet.
    """
    asked = response_request(await read_body(request), backend.models())
    before = stored.history(asked.previous)
    turns = (*before, *asked.job.messages)
    # OpenAI: instructions hold for this response alone
    system = () if asked.instructions is None else (ChatMessage(role="system", text=asked.instructions),)
    meter = Meter()
    answer = _Answer(asked, turns, stored, meter)
    job = msgspec.structs.replace(asked.job, messages=(*system, *turns))
    told = answer.encoder.blocks.read(meter.events(backend.chat(job)))
    if asked.stream:
        return EventStream(guarded(answer.frames(told), answer.failure))
    await attended(request.receive, _listen(told))
    return json_response(answer.response())


async def _listen(told: AsyncGenerator[Told, None]) -> None:
    """Read a response that is sent in one piece: its blocks are kept."""
    async for _ in told:
        continue


class _Answer:
    """One response in the making."""

    def __init__(
        self, asked: ResponseRequest, turns: tuple[ChatMessage, ...], stored: StoredAnswers, meter: Meter
    ) -> None:
        self.encoder = ResponseEncoder(_template(asked))
        self._asked = asked
        self._turns = turns
        self._stored = stored
        self._meter = meter

    async def frames(self, told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
        """Return the events of a stream."""
        yield self.encoder.begin()
        async for each in told:
            yield self.encoder.frames(each)
        yield self.encoder.end(self.response())

    def failure(self, error: BackendError) -> bytes:
        """Return the event of a response that failed."""
        return self.encoder.failure(error.code or "server_error", error.message)

    def response(self) -> dict[str, Any]:
        """Return the whole response, and keep it if it is to be kept."""
        end = self._meter.finished()
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
        if self._asked.store:
            self._stored.keep([*self._turns, *spoken(self.encoder.blocks.all)], body["id"])
        return body


def _template(asked: ResponseRequest) -> dict[str, Any]:
    """Return the fields of the response object that do not change while it is made."""
    job = asked.job
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
        "instructions": asked.instructions,
        "max_output_tokens": job.sampling.max_tokens,
        "model": job.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": asked.previous,
        "reasoning": {"effort": job.reasoning, "summary": None},
        "store": asked.store,
        "temperature": job.sampling.temperature,
        "text": {"format": {"type": "text" if job.json_schema is None else "json_schema"}},
        "tool_choice": job.tool_choice,
        "tools": tools,
        "top_p": job.sampling.top_p,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
    }
