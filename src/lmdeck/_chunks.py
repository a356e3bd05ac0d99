"""The chunks of a streamed answer; the events of `lmdeck.events` are for listeners only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck.messages import TokenLogprob, ToolCall
    from lmdeck.native_events import StreamEvent


class ToolCallDelta(Struct, frozen=True, gc=False):
    """The new part of a tool call that is still being generated.

    `index` is the position of the call in the answer, counted by lmdeck from 0. `name` is set on the first delta of the call
    only. `arguments` is the new fragment of JSON text; the fragments of one index add up to its `raw_arguments`.
    """

    index: int
    id: str
    name: str = ""
    arguments: str = ""


class Chunk(Struct, frozen=True, gc=False):
    """One change in a streamed answer, independent of how the server cut its chunks.

    `content` and `reasoning` are the new text, or `""`. `tool_call` is set once, when a call is complete. `event` is the
    server's own event, on the endpoints that have them: `/api/v1/chat`, `/v1/responses` and `/v1/messages`. `logprobs` are
    those of the tokens in this chunk, if they were requested.
    """

    content: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None
    tool_call_delta: ToolCallDelta | None = None
    finish_reason: str | None = None
    event: StreamEvent | None = None
    logprobs: Sequence[TokenLogprob] = ()

    @property
    def has_tool_call(self) -> bool:
        """Whether a tool call became complete on this chunk."""
        return self.tool_call is not None
