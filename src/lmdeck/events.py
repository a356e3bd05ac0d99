"""What arrives while an answer is being written: chunks, and the pieces of a tool call inside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from lmdeck.messages import ToolCall
    from lmdeck.native_events import StreamEvent

__all__ = ["Chunk", "ModelLoadProgress", "RequestQueued", "ToolCallDelta"]


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
    `event` is the server's own event, where the endpoint has any: `/api/v1/chat`, `/v1/responses` and `/v1/messages` do.
    """

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None
    tool_call_delta: ToolCallDelta | None = None
    finish_reason: str | None = None
    event: StreamEvent | None = None

    @property
    def has_tool_call(self) -> bool:
        """Tell whether a call became complete on this chunk."""
        return self.tool_call is not None


class ModelLoadProgress(Struct, frozen=True, gc=False):
    """A model is being loaded: `progress` goes from 0 to 1."""

    model: str
    progress: float


class RequestQueued(Struct, frozen=True, gc=False):
    """A request waited in this process for its turn: for `seconds`, because `limit` others were running."""

    request_id: str
    seconds: float
    limit: int
