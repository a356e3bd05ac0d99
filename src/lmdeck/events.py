"""What arrives while an answer is being written: chunks, and the pieces of a tool call inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lmdeck.errors import LMStudioError
    from lmdeck.messages import Reply, ToolCall, ToolResult

__all__ = [
    "AgentEvent", "Chunk", "RoundFinished", "ToolCallDelta", "ToolCallInvalid", "ToolDone", "ToolErrored", "ToolRunning",
]  # fmt: skip


class ToolCallDelta(Struct, frozen=True, gc=False):
    """The new part of a tool call that is still being written.

    `index` is the call's place in the answer, counted by lmdeck from 0. `name` is set on the call's first delta only;
    `arguments` is the new fragment of JSON text, and the fragments of one index add up to its `raw_arguments`.
    """

    index: int
    id: str
    name: str = ""
    arguments: str = ""


class Chunk(Struct, frozen=True, gc=False):
    """One thing that happened in a stream, whatever the server's own chunking was.

    `content` and `reasoning` are the new text, `""` where there is none; `tool_call` is set once, when a call is complete.
    """

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None
    tool_call_delta: ToolCallDelta | None = None
    finish_reason: str | None = None

    @property
    def has_tool_call(self) -> bool:
        """Tell whether a call became complete on this chunk."""
        return self.tool_call is not None


class ToolRunning(Struct, frozen=True, kw_only=True):
    """A handler was started for a call; `round` counts the model's answers from 1."""

    call: ToolCall
    round: int


class ToolDone(Struct, frozen=True, kw_only=True):
    """A handler came back."""

    result: ToolResult
    round: int


class ToolErrored(Struct, frozen=True, kw_only=True):
    """A handler raised, ran too long, or was not approved; the model is told `result.content`."""

    result: ToolResult
    round: int


class ToolCallInvalid(Struct, frozen=True, kw_only=True):
    """The model called a tool that does not exist, or with arguments that do not fit; the model is told."""

    call: ToolCall
    error: LMStudioError
    round: int


class RoundFinished(Struct, frozen=True, kw_only=True):
    """The model's answer is whole, and so are the results of its calls."""

    round: int
    reply: Reply


AgentEvent = Chunk | ToolRunning | ToolDone | ToolErrored | ToolCallInvalid | RoundFinished
