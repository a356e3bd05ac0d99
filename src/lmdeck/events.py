"""The chunks of a streamed answer, and the events of a client.

Every subclass of `Event` is an event type: `lm.on` accepts it, the table in the documentation lists it, Django gets a signal
for it and, if `__all__` names it, it can be imported from `lmdeck`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from lmdeck._chunks import Chunk as Chunk
from lmdeck._chunks import ToolCallDelta as ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck.errors import LMStudioError
    from lmdeck.messages import Problem, Reply, ToolCall, ToolResult
    from lmdeck.stats import Usage

__all__ = [
    "EVENTS",
    "AgentEvent",
    "Chunk",
    "ContentReceived",
    "Event",
    "ModelEvicted",
    "ModelLoadProgress",
    "ReasoningReceived",
    "RequestAbandoned",
    "RequestFailed",
    "RequestFinished",
    "RequestQueued",
    "RequestRetried",
    "RequestStarted",
    "RoundFinished",
    "RunEnded",
    "RunPaused",
    "RunStarted",
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


class Event(Struct, frozen=True):
    """The base class of everything that a client reports to the listeners of `lm.on`."""


class ToolStarted(Event, frozen=True, kw_only=True):
    """The handler of a tool call was started; `round` counts the model's answers from 1."""

    call: ToolCall
    round: int


class ToolFinished(Event, frozen=True, kw_only=True):
    """The handler of a tool call returned."""

    result: ToolResult
    round: int


class ToolExecutionFailed(Event, frozen=True, kw_only=True):
    """A handler raised, timed out, or was not approved; the model gets `result.content`."""

    result: ToolResult
    round: int


class ToolServerLost(Event, frozen=True, kw_only=True):
    """The connection to an MCP server was lost, and maybe restored.

    `server` is its address or command.
    """

    server: str
    reason: str
    reconnected: bool


class ToolCallInvalid(Event, frozen=True, kw_only=True):
    """The model called an unknown tool, or with invalid arguments.

    This is reported to the model.
    """

    call: ToolCall
    error: LMStudioError
    round: int


class RoundFinished(Event, frozen=True, kw_only=True):
    """The model's answer and the results of its calls are complete."""

    round: int
    reply: Reply


class RunPaused(Event, frozen=True, kw_only=True):
    """A run ended because `calls` wait for a decision.

    `id` is that of the `PausedRun`; `reply` is the answer with the calls.
    """

    id: str
    calls: Sequence[ToolCall]
    reply: Reply
    round: int


class RunStarted(Event, frozen=True, kw_only=True):
    """A run was started with `chat.run()` or `run_stream()`.

    `model` is the requested model or `""`.
    """

    model: str = ""


class RunEnded(Event, frozen=True, kw_only=True):
    """A run ended after `seconds`: with a `reply`, which `repr` omits, or an `error`.

    With neither, it was abandoned.
    """

    seconds: float
    reply: Reply | None = None
    error: Exception | None = None

    def __repr__(self) -> str:
        return _repr_without(self, "reply")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _fields_without(self, "reply")


class RequestStarted(Event, frozen=True, kw_only=True):
    """A request is about to be sent.

    Its `request_id` is on all later events and in lmdeck's logs.

    `endpoint` is the path of `url`, `model` the requested model or `""`, `body` the JSON that is sent, which `repr` omits.
    """

    request_id: str
    method: str
    url: str
    endpoint: str = ""
    model: str = ""
    body: bytes | None = None

    def __repr__(self) -> str:
        return _repr_without(self, "body")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _fields_without(self, "body")


class RequestRetried(Event, frozen=True, kw_only=True):
    """An attempt failed and will be repeated after `wait` seconds; `attempt` counts from 1."""

    request_id: str
    attempt: int
    wait: float
    error: LMStudioError


class RequestFinished(Event, frozen=True, kw_only=True):
    """An answer is complete: its `status`, its `attempts`, and the `seconds` of the last one.

    `model` is the model that answered, `usage` its token counts, `cache` is `"hit"`, `"shared"`, `"miss"` or None, as in
    `reply.cache`. `queue_time` and `time_to_first_token` are in seconds, `chunks` is the number of chunks. `is_streamed` is
    whether the server streamed them. `reply` is the answer of a chat, which `repr` omits; None for other endpoints.
    """

    request_id: str
    status: int
    attempts: int
    seconds: float
    endpoint: str = ""
    model: str = ""
    usage: Usage | None = None
    cache: str | None = None
    queue_time: float = 0.0
    time_to_first_token: float | None = None
    chunks: int = 0
    is_streamed: bool = False
    reply: Reply | None = None

    @property
    def finish_reason(self) -> str:
        """The finish reason of the reply; `""` if this was not a chat."""
        return "" if self.reply is None else self.reply.finish_reason

    @property
    def problems(self) -> Sequence[Problem]:
        """The problems of the reply."""
        return () if self.reply is None else self.reply.problems

    def __repr__(self) -> str:
        return _repr_without(self, "reply")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return _fields_without(self, "reply")


class RequestFailed(Event, frozen=True, kw_only=True):
    """A request failed after `seconds`; `error` is what the caller gets."""

    request_id: str
    error: LMStudioError
    endpoint: str = ""
    model: str = ""
    seconds: float = 0.0


class RequestAbandoned(Event, frozen=True, kw_only=True):
    """An answer was abandoned after `seconds` and `chunks`.

    The cause is `break`, `close`, a cancellation or Ctrl-C.
    """

    request_id: str
    endpoint: str = ""
    model: str = ""
    seconds: float = 0.0
    chunks: int = 0


class StreamStarted(Event, frozen=True, kw_only=True):
    """The first chunk of an answer arrived, after `seconds`."""

    request_id: str
    seconds: float


class StreamEnded(Event, frozen=True, kw_only=True):
    """The last chunk of a complete answer arrived; `chunks` is their number."""

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
    """The model started a tool call.

    Its `name` is known, its arguments are still being generated.
    """

    request_id: str
    index: int
    id: str
    name: str


class ToolCallFinished(Event, frozen=True, kw_only=True):
    """A tool call is complete."""

    request_id: str
    call: ToolCall


class ModelLoadProgress(Event, frozen=True, gc=False):
    """The progress of loading a model, from 0 to 1."""

    model: str
    progress: float


class ModelEvicted(Event, frozen=True, kw_only=True):
    """A model that this client used `idle` seconds ago was unloaded, and must be loaded again.

    `loaded` are the models in memory.

    `ttl` is the time to live in seconds that the earlier request set, or None.
    """

    model: str
    loaded: Sequence[str]
    idle: float
    ttl: float | None = None


class RequestQueued(Event, frozen=True, gc=False):
    """A request waited in this client's queue for `seconds`.

    Meanwhile, `limit` others were running.
    """

    request_id: str
    seconds: float
    limit: int


def _repr_without(event: Event, hidden: str) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in _fields_without(event, hidden))
    return f"{type(event).__name__}({shown})"


def _fields_without(event: Event, hidden: str) -> list[tuple[str, Any]]:
    return [(name, getattr(event, name)) for name in event.__struct_fields__ if name != hidden]


AgentEvent = (
    Chunk
    | ToolStarted
    | ToolFinished
    | ToolExecutionFailed
    | ToolServerLost
    | ToolCallInvalid
    | RoundFinished
    | RunPaused
)

EVENTS: tuple[type[Event], ...] = tuple(Event.__subclasses__())
"""Every event type, in the order of definition."""

_RENAMED: dict[str, type[Event]] = {
    "ToolRunning": ToolStarted,
    "ToolDone": ToolFinished,
    "ToolErrored": ToolExecutionFailed,
}


def renamed(name: str, *, stacklevel: int = 2) -> type[Event] | None:
    """Return the event type that had this name before lmdeck 0.2, with a warning.

    None if there was none.
    """
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
