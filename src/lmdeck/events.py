"""The chunks of an answer while it is written, and the events of a client.

An event is a subclass of `Event`: that makes it known to `lm.on`, to the table in the documentation, to Django's signals and,
with its place in `__all__`, to `lmdeck`'s own names.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck.errors import LMStudioError
    from lmdeck.messages import Reply, TokenLogprob, ToolCall, ToolResult
    from lmdeck.native_events import StreamEvent

__all__ = [
    "EVENTS",
    "AgentEvent",
    "Chunk",
    "ContentReceived",
    "Event",
    "ModelLoadProgress",
    "ReasoningReceived",
    "RequestFailed",
    "RequestFinished",
    "RequestQueued",
    "RequestRetried",
    "RequestStarted",
    "RoundFinished",
    "StreamEnded",
    "StreamStarted",
    "ToolCallDelta",
    "ToolCallFinished",
    "ToolCallInvalid",
    "ToolCallStarted",
    "ToolExecutionFailed",
    "ToolFinished",
    "ToolServerLost",
    "ToolStarted",
]


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
    `logprobs` are those of the tokens that came with this chunk, where they were asked for.
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
        """Tell whether a call became complete on this chunk."""
        return self.tool_call is not None


class Event(Struct, frozen=True):
    """Something that a client reports to the listeners of `lm.on`."""


class ToolStarted(Event, frozen=True, kw_only=True):
    """A handler was started for a call; `round` counts the model's answers from 1."""

    call: ToolCall
    round: int


class ToolFinished(Event, frozen=True, kw_only=True):
    """A handler came back."""

    result: ToolResult
    round: int


class ToolExecutionFailed(Event, frozen=True, kw_only=True):
    """A handler raised, ran too long, or was not approved; the model is told `result.content`."""

    result: ToolResult
    round: int


class ToolServerLost(Event, frozen=True, kw_only=True):
    """The MCP server of a tool went away: `server` is its address or command, `reconnected` whether it is back."""

    server: str
    reason: str
    reconnected: bool


class ToolCallInvalid(Event, frozen=True, kw_only=True):
    """The model called a tool that does not exist, or with arguments that do not fit; the model is told."""

    call: ToolCall
    error: LMStudioError
    round: int


class RoundFinished(Event, frozen=True, kw_only=True):
    """The model's answer is whole, and so are the results of its calls."""

    round: int
    reply: Reply


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request goes out: `method` and `url`; `request_id` is in all that follows of it, and in lmdeck's logs."""

    request_id: str
    method: str
    url: str


class RequestRetried(Event, frozen=True, kw_only=True):
    """An attempt failed, and after `wait` seconds there will be another; `attempt` counts from 1."""

    request_id: str
    attempt: int
    wait: float
    error: LMStudioError


class RequestFinished(Event, frozen=True, kw_only=True):
    """An answer is whole: its `status`, the `attempts` it took, and the `seconds` of the last one."""

    request_id: str
    status: int
    attempts: int
    seconds: float


class RequestFailed(Event, frozen=True, kw_only=True):
    """There is no whole answer; `error` is what the caller gets."""

    request_id: str
    error: LMStudioError


class StreamStarted(Event, frozen=True, kw_only=True):
    """The first chunk of an answer came, after `seconds`."""

    request_id: str
    seconds: float


class StreamEnded(Event, frozen=True, kw_only=True):
    """The last chunk of a whole answer came; `chunks` is how many there were."""

    request_id: str
    chunks: int
    seconds: float


class ContentReceived(Event, frozen=True, kw_only=True):
    """New content: the `text` of one chunk."""

    request_id: str
    text: str


class ReasoningReceived(Event, frozen=True, kw_only=True):
    """New reasoning: the `text` of one chunk."""

    request_id: str
    text: str


class ToolCallStarted(Event, frozen=True, kw_only=True):
    """The model begins a tool call: its `name` is known, its arguments are still being written."""

    request_id: str
    index: int
    id: str
    name: str


class ToolCallFinished(Event, frozen=True, kw_only=True):
    """A tool call is whole."""

    request_id: str
    call: ToolCall


class ModelLoadProgress(Event, frozen=True, gc=False):
    """A model is being loaded: `progress` goes from 0 to 1."""

    model: str
    progress: float


class RequestQueued(Event, frozen=True, gc=False):
    """A request waited in this process for its turn: for `seconds`, because `limit` others were running."""

    request_id: str
    seconds: float
    limit: int


AgentEvent = Chunk | ToolStarted | ToolFinished | ToolExecutionFailed | ToolServerLost | ToolCallInvalid | RoundFinished

EVENTS: tuple[type[Event], ...] = tuple(Event.__subclasses__())
"""Every event type, in the order of definition."""

_RENAMED: dict[str, type[Event]] = {
    "ToolRunning": ToolStarted,
    "ToolDone": ToolFinished,
    "ToolErrored": ToolExecutionFailed,
}


def renamed(name: str, *, stacklevel: int = 2) -> type[Event] | None:
    """Return an event type by the name it had before lmdeck 0.2, with a warning; None if no type had that name."""
    event = _RENAMED.get(name)
    if event is not None:
        message = f"{name} is now called {event.__name__}; the old name is removed in lmdeck 0.3."
        warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)
    return event


def __getattr__(name: str) -> type[Event]:
    event = renamed(name)
    if event is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return event
