"""`POST /v1/responses`: OpenAI's response object or its events (LM Studio's docs, `3_openai-compat/responses.md`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.server.blocks import Begin, Blocks, End, More
from lmdeck.server.delivery import (
    EventStream,
    Meter,
    attended,
    finish_reason,
    guarded,
    item_id,
    json_response,
    named_event,
)
from lmdeck.server.jobs import ChatMessage
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.responses import response_request
from lmdeck.server.stored import spoken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.blocks import Block, Told
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
    told = answer.blocks.read(meter.events(backend.chat(job)))
    if asked.stream:
        return EventStream(guarded(answer.frames(told), answer.failure))
    await attended(request.receive, answer.listen(told))
    return json_response(answer.response())


class _Answer:
    """One response in the making."""

    def __init__(
        self, asked: ResponseRequest, turns: tuple[ChatMessage, ...], stored: StoredAnswers, meter: Meter
    ) -> None:
        self.blocks = Blocks()
        self._asked = asked
        self._turns = turns
        self._stored = stored
        self._meter = meter
        self._id = item_id("resp")
        self._created = int(time.time())
        self._items: list[str] = []
        self._sequence = -1

    async def listen(self, told: AsyncGenerator[Told, None]) -> None:
        """Read a response that is sent in one piece."""
        async for each in told:
            self._note(each)

    async def frames(self, told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
        """Give the events of a stream."""
        begun = self._body("in_progress", [])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        async for each in told:
            self._note(each)
            for frame in self._frames(each):
                yield frame
        response = self.response()
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, error: BackendError) -> bytes:
        """Give the event of a response that failed."""
        body = self._body("failed", [self._item(block) for block in self.blocks.all])
        body["error"] = {"code": error.code or "server_error", "message": error.message}
        return self._event("response.failed", response=body)

    def response(self) -> dict[str, Any]:
        """Give the whole response, and keep it if it is to be kept."""
        end = self._meter.finished()
        is_cut = finish_reason(end.stop_reason) == "length"
        body = self._body("incomplete" if is_cut else "completed", [self._item(block) for block in self.blocks.all])
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
            self._stored.keep([*self._turns, *spoken(self.blocks.all)], self._id)
        return body

    def _body(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        job = self._asked.job
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
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": self._asked.instructions,
            "max_output_tokens": job.sampling.max_tokens,
            "model": job.model,
            "output": output,
            "parallel_tool_calls": True,
            "previous_response_id": self._asked.previous,
            "reasoning": {"effort": job.reasoning, "summary": None},
            "store": self._asked.store,
            "temperature": job.sampling.temperature,
            "text": {"format": {"type": "text" if job.json_schema is None else "json_schema"}},
            "tool_choice": job.tool_choice,
            "tools": tools,
            "top_p": job.sampling.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
        }

    def _note(self, told: Told) -> None:
        if isinstance(told, Begin):
            self._items.append(item_id({"text": "msg", "reasoning": "rs", "call": "fc"}[told.block.kind]))

    def _item(self, block: Block, status: str = "completed") -> dict[str, Any]:
        base = {"id": self._items[block.index], "status": status}
        match block.kind:
            case "text":
                content = [] if status == "in_progress" else [_part(block)]
                return {**base, "type": "message", "role": "assistant", "content": content}
            case "reasoning":
                content = [] if status == "in_progress" else [_part(block)]
                return {**base, "type": "reasoning", "summary": [], "content": content}
        if block.provider is None:
            arguments = "" if status == "in_progress" else block.text
            return {**base, "type": "function_call", "call_id": block.id, "name": block.name, "arguments": arguments}
        return {
            "id": self._items[block.index],
            "type": "mcp_call",
            "name": block.name,
            "arguments": block.text,
            "server_label": block.provider.server_label or block.provider.plugin_id,
            "output": block.outcome.output if block.outcome else None,
            "error": block.outcome.reason if block.outcome else None,
        }

    def _frames(self, told: Told) -> Iterator[bytes]:
        match told:
            case Begin(block=block):
                place = {"output_index": block.index}
                yield self._event("response.output_item.added", **place, item=self._item(block, "in_progress"))
                if block.kind != "call":
                    part = {**_part(block), "text": ""}
                    yield self._event("response.content_part.added", **self._place(block), part=part)
            case More(block=block, text=text):
                yield self._event(f"{_name(block)}.delta", **self._place(block), delta=text)
            case End(block=block):
                yield from self._ended(block)

    def _ended(self, block: Block) -> Iterator[bytes]:
        if block.kind == "call":
            yield self._event(f"{_name(block)}.done", **self._place(block), name=block.name, arguments=block.text)
        else:
            yield self._event(f"{_name(block)}.done", **self._place(block), text=block.text)
            yield self._event("response.content_part.done", **self._place(block), part=_part(block))
        yield self._event("response.output_item.done", output_index=block.index, item=self._item(block))

    def _place(self, block: Block) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": self._items[block.index], "output_index": block.index}
        if block.kind != "call":
            place["content_index"] = 0
        if block.kind == "text":
            place["logprobs"] = []
        return place

    def _event(self, kind: str, **fields: object) -> bytes:
        self._sequence += 1
        if kind.startswith("response.content_part"):
            fields.pop("logprobs", None)
        return named_event(kind, {"type": kind, **fields, "sequence_number": self._sequence})


def _name(block: Block) -> str:
    names = {"text": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}
    return f"response.{names[block.kind]}"


def _part(block: Block) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
