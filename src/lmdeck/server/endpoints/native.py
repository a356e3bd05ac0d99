"""`POST /api/v1/chat`: one body of items, or the documented events (LM Studio's docs, `2_rest/`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck.server.blocks import Begin, Blocks, End, More
from lmdeck.server.delivery import EventStream, Meter, attended, guarded, json_response
from lmdeck.server.encoders.common import named_event
from lmdeck.server.errors import native_error
from lmdeck.server.events import LoadProgress, PromptProgress, ToolOutcome
from lmdeck.server.jobs import ChatMessage
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.native import native_chat
from lmdeck.server.stored import spoken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend, BackendError
    from lmdeck.server.blocks import Block, Told
    from lmdeck.server.jobs import ModelDescription
    from lmdeck.server.requests.native import NativeChat
    from lmdeck.server.stored import StoredAnswers

__all__ = ["answer_native_chat"]

_NAMES = {"reasoning": "reasoning", "text": "message"}


async def answer_native_chat(request: Request, backend: Backend, stored: StoredAnswers) -> Response:
    """Answer one request of `/api/v1/chat`.

    Raises:
        Refusal: The request breaks a rule, or continues an answer that is not known.
        BackendError: The back end cannot answer, and nothing has been sent yet.
    """
    asked = native_chat(await read_body(request), backend.models())
    history = _history(asked, stored)
    job = msgspec.structs.replace(asked.job, messages=history)
    meter = Meter()
    answer = _Answer(asked, history, stored, meter, backend.models())
    told = answer.blocks.read(meter.events(backend.chat(job)))
    if asked.stream:
        return EventStream(guarded(answer.frames(told), answer.failure))
    await attended(request.receive, answer.listen(told))
    return json_response(answer.result())


def _history(asked: NativeChat, stored: StoredAnswers) -> tuple[ChatMessage, ...]:
    """Put what is said now behind the turns before it; a new system prompt takes the place of the old one."""
    before = stored.history(asked.previous)
    if asked.system_prompt is not None:
        before = (
            ChatMessage(role="system", text=asked.system_prompt),
            *(turn for turn in before if turn.role != "system"),
        )
    return (*before, asked.said)


class _Answer:
    """One answer in the making: which events it gives, and what it comes to."""

    def __init__(
        self,
        asked: NativeChat,
        history: tuple[ChatMessage, ...],
        stored: StoredAnswers,
        meter: Meter,
        models: tuple[ModelDescription, ...] | Any,  # noqa: ANN401  # any sequence
    ) -> None:
        self.blocks = Blocks()
        self._asked = asked
        self._history = history
        self._stored = stored
        self._meter = meter
        described = next(model for model in models if model.key == asked.job.model)
        self._instance = described.instances[0].id if described.instances else described.key
        self._load_began: float | None = None
        self._load_seconds: float | None = None
        self._prompt: str = "not begun"

    async def listen(self, told: AsyncGenerator[Told, None]) -> None:
        """Read an answer that is sent in one piece."""
        async for each in told:
            if isinstance(each, LoadProgress):
                self._note_load(each)

    async def frames(self, told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
        """Give the events of a stream."""
        yield self._event("chat.start", model_instance_id=self._instance)
        async for each in told:
            for frame in self._frames(each):
                yield frame
        for frame in self._end_prompt():
            yield frame
        yield self._event("chat.end", result=self.result())

    def failure(self, error: BackendError) -> bytes:
        """Give the event of a failure, and behind it, as documented, what there is of the answer."""
        end = self._event("error", error=native_error(error.type, error.message, error.code))
        return end + self._event("chat.end", result=self.result())

    def result(self) -> dict[str, Any]:
        """Give the whole answer, and keep it if it is to be kept."""
        end = self._meter.end
        stats: dict[str, Any] = {
            "input_tokens": end.prompt_tokens if end else 0,
            "total_output_tokens": end.completion_tokens if end else 0,
            "reasoning_output_tokens": end.reasoning_tokens if end else 0,
            "tokens_per_second": self._meter.tokens_per_second if end else 0.0,
            "time_to_first_token_seconds": round(self._meter.time_to_first_token, 3) if end else 0.0,
        }
        if self._load_seconds is not None:
            stats["model_load_time_seconds"] = round(self._load_seconds, 3)
        result: dict[str, Any] = {
            "model_instance_id": self._instance,
            "output": [_item(block) for block in self.blocks.all],
            "stats": stats,
        }
        if self._asked.store and end is not None:
            result["response_id"] = self._stored.keep([*self._history, *spoken(self.blocks.all)])
        return result

    def _frames(self, told: Told) -> Iterator[bytes]:
        match told:
            case LoadProgress():
                yield from self._load(told)
            case PromptProgress(fraction=fraction):
                yield from self._begin_prompt()
                yield self._event("prompt_processing.progress", progress=fraction)
            case Begin(block=block):
                yield from self._end_prompt()
                yield self._begun(block)
            case More(block=block, text=text) if block.kind != "call":
                yield self._event(f"{_NAMES[block.kind]}.delta", content=text)
            case End(block=block) if block.kind != "call":
                yield self._event(f"{_NAMES[block.kind]}.end")
            case End(block=block):
                yield self._event("tool_call.arguments", **_call(block))
            case ToolOutcome():
                yield self._settled(next(each for each in self.blocks.all if each.outcome is told))

    def _load(self, progress: LoadProgress) -> Iterator[bytes]:
        if self._load_began is None:
            yield self._event("model_load.start", model_instance_id=self._instance)
        self._note_load(progress)
        yield self._event("model_load.progress", model_instance_id=self._instance, progress=progress.fraction)
        if self._load_seconds is not None:
            seconds = round(self._load_seconds, 3)
            yield self._event("model_load.end", model_instance_id=self._instance, load_time_seconds=seconds)

    def _note_load(self, progress: LoadProgress) -> None:
        now = time.perf_counter()
        self._load_began = now if self._load_began is None else self._load_began
        if progress.fraction >= 1:
            self._load_seconds = now - self._load_began

    def _begin_prompt(self) -> Iterator[bytes]:
        if self._prompt == "not begun":
            self._prompt = "begun"
            yield self._event("prompt_processing.start")

    def _end_prompt(self) -> Iterator[bytes]:
        yield from self._begin_prompt()
        if self._prompt == "begun":
            self._prompt = "ended"
            yield self._event("prompt_processing.end")

    def _begun(self, block: Block) -> bytes:
        if block.kind != "call":
            return self._event(f"{_NAMES[block.kind]}.start")
        return self._event("tool_call.start", tool=block.name, provider_info=block.provider or {})

    def _settled(self, block: Block) -> bytes:
        if block.outcome is not None and block.outcome.reason is not None:
            return self._event("tool_call.failure", **_invalid(block))
        return self._event("tool_call.success", **_call(block), output=block.outcome.output if block.outcome else "")

    def _event(self, kind: str, **fields: object) -> bytes:
        return named_event(kind, {"type": kind, **fields})


def _item(block: Block) -> dict[str, Any]:
    if block.kind != "call":
        return {"type": _NAMES[block.kind], "content": block.text}
    if block.outcome is not None and block.outcome.reason is not None:
        return {"type": "invalid_tool_call", **_invalid(block)}
    return {"type": "tool_call", **_call(block), "output": block.outcome.output if block.outcome else ""}


def _call(block: Block) -> dict[str, Any]:
    return {"tool": block.name, "arguments": block.arguments, "provider_info": block.provider or {}}


def _invalid(block: Block) -> dict[str, Any]:
    outcome = block.outcome
    metadata: dict[str, Any] = {"type": outcome.kind if outcome else "invalid_arguments", "tool_name": block.name}
    if metadata["type"] == "invalid_arguments":
        metadata |= {"arguments": block.arguments, "provider_info": block.provider or {}}
    return {"reason": outcome.reason if outcome else "", "metadata": metadata}
