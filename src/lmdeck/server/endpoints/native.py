"""`POST /api/v1/chat`: one body with items, or a stream of events.

Source: LM Studio's docs, `2_rest/`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._encoders.backend_events import LoadProgress, PromptProgress, ToolOutcome
from lmdeck._encoders.blocks import BlockDelta, BlockEnd, Blocks, BlockStart
from lmdeck._encoders.common import named_event
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.errors import native_error
from lmdeck.server.http_responses import EventStream, ResponseTimer, json_response, with_error_frame
from lmdeck.server.jobs import ChatMessage
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.native import native_chat
from lmdeck.server.stored import blocks_to_messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from lmdeck._encoders.blocks import BlockEvent, OutputBlock
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.jobs import ModelDescription
    from lmdeck.server.requests.native import NativeChat
    from lmdeck.server.stored import StoredResponses

_NAMES = {"reasoning": "reasoning", "text": "message"}


async def answer_native_chat(request: IncomingRequest, backend: Backend, stored: StoredResponses) -> Response:
    """Answer one request of `/api/v1/chat`.

    Raises:
        Refusal: The request is invalid, or continues an unknown response.
        BackendError: The back end refuses the request; nothing has been sent yet.
    """
    parsed = native_chat(await read_body(request), backend.models())
    history = _history(parsed, stored)
    job = msgspec.structs.replace(parsed.job, messages=history)
    timer = ResponseTimer()
    answer = _NativeResponseBuilder(parsed, history, stored, timer, backend.models())
    events = answer.blocks.read(timer.events(backend.chat(job)))
    if parsed.stream:
        return EventStream(with_error_frame(answer.frames(events), answer.failure))
    await run_until_disconnect(request.receive, answer.drain(events))
    return json_response(answer.result())


def _history(parsed: NativeChat, stored: StoredResponses) -> tuple[ChatMessage, ...]:
    """Return the stored history with the new message; a new system prompt replaces the old one."""
    earlier = stored.history(parsed.previous)
    if parsed.system_prompt is not None:
        earlier = (
            ChatMessage(role="system", text=parsed.system_prompt),
            *(message for message in earlier if message.role != "system"),
        )
    return (*earlier, parsed.message)


class _NativeResponseBuilder:
    """The response to one chat, built while its events are read."""

    def __init__(
        self,
        parsed: NativeChat,
        history: tuple[ChatMessage, ...],
        stored: StoredResponses,
        timer: ResponseTimer,
        models: tuple[ModelDescription, ...] | Any,  # any sequence
    ) -> None:
        self.blocks = Blocks()
        self._parsed = parsed
        self._history = history
        self._stored = stored
        self._timer = timer
        described = next(model for model in models if model.key == parsed.job.model)
        self._instance = described.instances[0].id if described.instances else described.key
        self._load_started: float | None = None
        self._load_seconds: float | None = None
        self._prompt: str = "pending"

    async def drain(self, events: AsyncGenerator[BlockEvent, None]) -> None:
        """Read all events of an answer that is sent as one body."""
        async for event in events:
            if isinstance(event, LoadProgress):
                self._note_load(event)

    async def frames(self, events: AsyncGenerator[BlockEvent, None]) -> AsyncGenerator[bytes, None]:
        """Yield the events of a stream."""
        yield self._event("chat.start", model_instance_id=self._instance)
        async for event in events:
            for frame in self._frames(event):
                yield frame
        for frame in self._end_prompt():
            yield frame
        yield self._event("chat.end", result=self.result())

    def failure(self, error: BackendError) -> bytes:
        """Return the error event, followed by the partial answer, as documented."""
        end = self._event("error", error=native_error(error.type, error.message, error.code))
        return end + self._event("chat.end", result=self.result())

    def result(self) -> dict[str, Any]:
        """Return the whole answer, and store it if the request asks for that."""
        end = self._timer.end
        stats: dict[str, Any] = {
            "input_tokens": end.prompt_tokens if end else 0,
            "total_output_tokens": end.completion_tokens if end else 0,
            "reasoning_output_tokens": end.reasoning_tokens if end else 0,
            "tokens_per_second": self._timer.tokens_per_second if end else 0.0,
            "time_to_first_token_seconds": round(self._timer.time_to_first_token, 3) if end else 0.0,
        }
        if self._load_seconds is not None:
            stats["model_load_time_seconds"] = round(self._load_seconds, 3)
        result: dict[str, Any] = {
            "model_instance_id": self._instance,
            "output": [_item(block) for block in self.blocks.all],
            "stats": stats,
        }
        if self._parsed.store and end is not None:
            result["response_id"] = self._stored.add([*self._history, *blocks_to_messages(self.blocks.all)])
        return result

    def _frames(self, event: BlockEvent) -> Iterator[bytes]:
        match event:
            case LoadProgress():
                yield from self._load(event)
            case PromptProgress(fraction=fraction):
                yield from self._start_prompt()
                yield self._event("prompt_processing.progress", progress=fraction)
            case BlockStart(block=block):
                yield from self._end_prompt()
                yield self._start_frame(block)
            case BlockDelta(block=block, text=text) if block.kind != "call":
                yield self._event(f"{_NAMES[block.kind]}.delta", content=text)
            case BlockEnd(block=block) if block.kind != "call":
                yield self._event(f"{_NAMES[block.kind]}.end")
            case BlockEnd(block=block):
                yield self._event("tool_call.arguments", **_call_fields(block))
            case ToolOutcome():
                yield self._outcome_frame(next(each for each in self.blocks.all if each.outcome is event))

    def _load(self, progress: LoadProgress) -> Iterator[bytes]:
        if self._load_started is None:
            yield self._event("model_load.start", model_instance_id=self._instance)
        self._note_load(progress)
        yield self._event("model_load.progress", model_instance_id=self._instance, progress=progress.fraction)
        if self._load_seconds is not None:
            seconds = round(self._load_seconds, 3)
            yield self._event("model_load.end", model_instance_id=self._instance, load_time_seconds=seconds)

    def _note_load(self, progress: LoadProgress) -> None:
        now = time.perf_counter()
        self._load_started = now if self._load_started is None else self._load_started
        if progress.fraction >= 1:
            self._load_seconds = now - self._load_started

    def _start_prompt(self) -> Iterator[bytes]:
        if self._prompt == "pending":
            self._prompt = "started"
            yield self._event("prompt_processing.start")

    def _end_prompt(self) -> Iterator[bytes]:
        yield from self._start_prompt()
        if self._prompt == "started":
            self._prompt = "ended"
            yield self._event("prompt_processing.end")

    def _start_frame(self, block: OutputBlock) -> bytes:
        if block.kind != "call":
            return self._event(f"{_NAMES[block.kind]}.start")
        return self._event("tool_call.start", tool=block.name, provider_info=block.provider or {})

    def _outcome_frame(self, block: OutputBlock) -> bytes:
        if block.outcome is not None and block.outcome.reason is not None:
            return self._event("tool_call.failure", **_invalid_call_fields(block))
        return self._event(
            "tool_call.success", **_call_fields(block), output=block.outcome.output if block.outcome else ""
        )

    def _event(self, kind: str, **fields: object) -> bytes:
        return named_event(kind, {"type": kind, **fields})


def _item(block: OutputBlock) -> dict[str, Any]:
    if block.kind != "call":
        return {"type": _NAMES[block.kind], "content": block.text}
    if block.outcome is not None and block.outcome.reason is not None:
        return {"type": "invalid_tool_call", **_invalid_call_fields(block)}
    return {"type": "tool_call", **_call_fields(block), "output": block.outcome.output if block.outcome else ""}


def _call_fields(block: OutputBlock) -> dict[str, Any]:
    return {"tool": block.name, "arguments": block.arguments, "provider_info": block.provider or {}}


def _invalid_call_fields(block: OutputBlock) -> dict[str, Any]:
    outcome = block.outcome
    metadata: dict[str, Any] = {"type": outcome.kind if outcome else "invalid_arguments", "tool_name": block.name}
    if metadata["type"] == "invalid_arguments":
        metadata |= {"arguments": block.arguments, "provider_info": block.provider or {}}
    return {"reason": outcome.reason if outcome else "", "metadata": metadata}
