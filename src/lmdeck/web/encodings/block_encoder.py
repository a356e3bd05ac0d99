"""The events of a run as blocks that begin and end, for encodings of other front ends.

A text, a reasoning and a tool call have a beginning, deltas and an end; one block is open at a time, and a round is a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import msgspec

from lmdeck._encoders.event_stream import encode_event
from lmdeck.errors import LMStudioError
from lmdeck.events import (
    Chunk,
    RoundFinished,
    RunPaused,
    ToolCallInvalid,
    ToolExecutionFailed,
    ToolFinished,
    ToolServerLost,
    ToolStarted,
)
from lmdeck.messages import Reply, ToolCall, ToolResult
from lmdeck.web.encodings.base import AnswerEvent

TextKind: TypeAlias = Literal["text", "reasoning"]
CallEvent: TypeAlias = ToolStarted | ToolFinished | ToolExecutionFailed | ToolCallInvalid | RunPaused
Fields: TypeAlias = dict[str, Any]


class BlockEncoder:
    """An encoder of one answer.

    Subclasses return the fields of each block's events, and none for events that they do not have.
    """

    def __init__(self) -> None:
        self._is_started = False
        self._in_step = False
        self._kind: TextKind | None = None  # of the open text
        self._started_calls: dict[int, str] = {}  # of the current round: index to id
        self._ended_calls: set[str] = set()

    def encode(self, event: AnswerEvent) -> bytes:
        """Return the bytes for an event."""
        return b"".join(encode_event(msgspec.json.encode(fields)) for fields in self._answer_events(event))

    def start(self) -> list[Fields]:
        """Return the events that begin an answer."""
        raise NotImplementedError

    def finish(self, end: Reply | LMStudioError) -> list[Fields]:
        """Return the events that end an answer."""
        raise NotImplementedError

    def start_step(self) -> list[Fields]:
        """Return the events that begin a round."""
        return []

    def finish_step(self) -> list[Fields]:
        """Return the events that end a round."""
        return []

    def open_text(self, kind: TextKind) -> list[Fields]:
        """Return the events that begin a text."""
        raise NotImplementedError

    def add_text(self, kind: TextKind, delta: str) -> list[Fields]:
        """Return the events of a piece of the open text."""
        raise NotImplementedError

    def close_text(self, kind: TextKind) -> list[Fields]:
        """Return the events that end the open text."""
        raise NotImplementedError

    def open_call(self, call_id: str, name: str) -> list[Fields]:
        """Return the events that begin a tool call."""
        raise NotImplementedError

    def add_arguments(self, call_id: str, fragment: str) -> list[Fields]:
        """Return the events of a piece of a call's arguments."""
        raise NotImplementedError

    def close_call(self, call: ToolCall) -> list[Fields]:
        """Return the events that end a tool call, whose arguments are now complete."""
        raise NotImplementedError

    def result(self, result: ToolResult) -> list[Fields]:
        """Return the events of a tool's result."""
        raise NotImplementedError

    def ask_approval(self, run: str, call: ToolCall) -> list[Fields]:
        """Return the events of a call that waits for a decision."""
        raise NotImplementedError

    def _answer_events(self, event: AnswerEvent) -> Iterator[Fields]:
        if not self._is_started:
            self._is_started = True
            yield from self.start()
        match event:
            case Reply() | LMStudioError():
                yield from self._end_round()
                yield from self.finish(event)
            case RoundFinished():
                yield from self._end_round()
            case Chunk():
                yield from self._chunk(event)
            case ToolServerLost():
                return  # the results of the affected calls report it
            case _:
                yield from self._call_events(event)

    def _call_events(self, event: CallEvent) -> Iterator[Fields]:
        match event:
            case ToolStarted(call=call):
                yield from self._end_call(call)
            case ToolFinished(result=result) | ToolExecutionFailed(result=result):
                yield from self.result(result)
            case ToolCallInvalid(call=call, error=error):
                yield from self._end_call(call)
                yield from self.result(ToolResult(call=call, content=error.message, error=error))
            case RunPaused(calls=calls):
                for call in calls:
                    yield from self._end_call(call)
                    yield from self.ask_approval(event.id, call)
                yield from self._end_round()

    def _chunk(self, chunk: Chunk) -> Iterator[Fields]:
        texts: tuple[tuple[TextKind, str], ...] = (("reasoning", chunk.reasoning), ("text", chunk.content))
        for kind, text in texts:
            if text:
                yield from self._begin_text(kind)
                yield from self.add_text(kind, text)
        if delta := chunk.tool_call_delta:
            if delta.index not in self._started_calls:
                yield from self._begin_call(delta.index, delta.id, delta.name)
            if delta.arguments:
                yield from self.add_arguments(self._started_calls[delta.index], delta.arguments)
        if call := chunk.tool_call:
            yield from self._end_call(call)

    def _begin_text(self, kind: TextKind) -> Iterator[Fields]:
        if self._kind == kind:
            return
        yield from self._begin_step()
        yield from self._end_text()
        self._kind = kind
        yield from self.open_text(kind)

    def _end_text(self) -> Iterator[Fields]:
        kind, self._kind = self._kind, None
        if kind is not None:
            yield from self.close_text(kind)

    def _begin_call(self, index: int, call_id: str, name: str) -> Iterator[Fields]:
        yield from self._begin_step()
        yield from self._end_text()
        self._started_calls[index] = call_id
        yield from self.open_call(call_id, name)

    def _end_call(self, call: ToolCall) -> Iterator[Fields]:
        """End a call, once; a call without deltas is sent completely."""
        if call.id in self._ended_calls:
            return
        self._ended_calls.add(call.id)
        if call.id not in self._started_calls.values():
            yield from self._begin_call(-1 - len(self._ended_calls), call.id, call.name)
            yield from self.add_arguments(call.id, call.raw_arguments or msgspec.json.encode(call.arguments).decode())
        yield from self.close_call(call)

    def _begin_step(self) -> Iterator[Fields]:
        if not self._in_step:
            self._in_step = True
            yield from self.start_step()

    def _end_round(self) -> Iterator[Fields]:
        yield from self._end_text()
        self._started_calls.clear()
        if self._in_step:
            self._in_step = False
            yield from self.finish_step()
