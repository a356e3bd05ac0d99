"""Messages, replies and tool calls: the values of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from lmdeck.errors import ConfigurationError, LMStudioError
from lmdeck.stats import Stats, Usage

__all__ = [
    "CacheResult",
    "Message",
    "ModelDetails",
    "ParsedMessage",
    "Problem",
    "Reply",
    "Role",
    "Round",
    "Runtime",
    "ServerCall",
    "TokenLogprob",
    "ToolCall",
    "ToolResult",
]

CacheResult = Literal["hit", "shared", "miss"]
Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES = ("system", "developer", "user", "assistant", "tool")


class ToolCall(Struct, frozen=True, kw_only=True):
    """A tool call of the model: `arguments` decoded, `raw_arguments` as the model wrote them.

    `span` is the position of the call in the text that the model wrote, `(begin, end)` in characters, markers included; None
    for a native call. Until the enclosing block of calls has ended, the end may still grow.
    """

    id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    raw_arguments: str = "{}"
    span: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the call in OpenAI's format, its arguments as valid JSON text."""
        text = msgspec.json.encode(self.arguments).decode()
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": text}}


class ServerCall(Struct, frozen=True, kw_only=True):
    """A tool call that the server ran itself, through a plugin or an MCP server.

    `output` is the result of the tool, `error` the reason why it was not run.
    `provider` is LM Studio's `provider_info`: `{"type": "plugin", "plugin_id": …}` or
    `{"type": "ephemeral_mcp", "server_label": …}` (LM Studio docs `2_rest/chat.md`).
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    output: str = ""
    provider: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    id: str = ""


class Problem(Struct, frozen=True):
    """A repair, change or omission in a request or an answer.

    `code` is for programs, `detail` for people.

    `raw` is the text of a call that could not be parsed. If the code is `"adjusted"`, `rule` names the rule that changed the
    request; `lmdeck.rules()` lists them. `span` is the position of the affected text, `(begin, end)` in characters of the
    model's text, or None. `dialect` is that of the tool call in question: a name of `lmdeck.dialects()`, `"native"` for a call
    that the server sent as one, or `""`.
    """

    code: str
    detail: str
    raw: str = ""
    rule: str = ""
    span: tuple[int, int] | None = None
    dialect: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


TOOL_CALL_ANNOUNCED = "The finish reason is a tool call, but the server did not send one."


def not_a_message(value: object) -> ConfigurationError:
    """Return the error for a value that was passed as a message."""
    return ConfigurationError(
        f"A message must be a dict or a Message, not {type(value).__name__}.",
        hint='Use {"role": "user", "content": "…"}.',
    )


class Message(Struct, frozen=True, kw_only=True):
    """One message of a conversation, with OpenAI's fields.

    `content` is text or a list of content parts. `tool_calls` are set on assistant messages, `tool_call_id` on tool results.
    """

    role: Role
    content: str | Sequence[Mapping[str, Any]] = ""
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> Message:
        """Read an OpenAI-style message.

        Raises:
            ConfigurationError: It is not a dict, the role is unknown, or the content is neither text nor a list of parts.
        """
        if not isinstance(message, Mapping):
            raise not_a_message(message)
        role = message.get("role")
        if role not in ROLES:
            expected = ", ".join(ROLES)
            raise ConfigurationError(
                f"A message's role must be one of {expected}, not {role!r}.", hint="Correct the message's `role`."
            )
        content = message.get("content")
        if content is not None and not isinstance(content, (str, list, tuple)):
            raise ConfigurationError(
                f"A message's content must be text or a list of parts, not {type(content).__name__}.",
                hint="Pass a string, or OpenAI-style content parts.",
            )
        return cls(
            role=role,
            content="" if content is None else content,
            name=message.get("name"),
            tool_calls=tuple(read_call(call) for call in message.get("tool_calls") or ()),
            tool_call_id=message.get("tool_call_id"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the message in OpenAI's format; `content` is never null, as LM Studio requires."""
        fields: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            fields["name"] = self.name
        if self.tool_calls:
            fields["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_call_id is not None:
            fields["tool_call_id"] = self.tool_call_id
        return fields


def read_call(call: object) -> ToolCall:
    """Read an OpenAI-style call of a history.

    Raises:
        ConfigurationError: It has no name, or its arguments are not a JSON object.
    """
    if isinstance(call, ToolCall):
        return call
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not function.get("name"):
        raise ConfigurationError(
            "A message's tool call has no function name.",
            hint='Use {"id": …, "type": "function", "function": {"name": …, "arguments": …}}.',
        )
    name, value = str(function["name"]), function.get("arguments")
    arguments = _read_arguments(name, value)
    raw = value if isinstance(value, str) and value else msgspec.json.encode(arguments).decode()
    return ToolCall(id=str(call.get("id") or ""), name=name, arguments=arguments, raw_arguments=raw)


def _read_arguments(name: str, value: object) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    try:
        arguments = msgspec.json.decode(value) if isinstance(value, (str, bytes)) else value
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigurationError(
            f"The arguments of the call of {name!r} in the history are not JSON: {error}.",
            hint="Append `reply.message` to the history instead of writing calls by hand.",
        ) from error
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(
            f"The arguments of the call of {name!r} in the history are {type(arguments).__name__}, not an object.",
            hint="Append `reply.message` to the history instead of writing calls by hand.",
        )
    return dict(arguments)


class ParsedMessage(Struct, frozen=True, kw_only=True):
    """A parsed answer: content without markup, reasoning, tool calls, and the problems found."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class ModelDetails(Struct, frozen=True, kw_only=True):
    """LM Studio's `model_info`: the model that answered."""

    arch: str | None = None
    quant: str | None = None
    format: str | None = None
    context_length: int | None = None


class Runtime(Struct, frozen=True, kw_only=True):
    """LM Studio's `runtime`: the engine that answered."""

    name: str | None = None
    version: str | None = None
    supported_formats: list[str] = field(default_factory=list)


class TokenLogprob(Struct, frozen=True, kw_only=True, gc=False):
    """A generated token and the natural logarithm of its probability.

    `bytes` is its UTF-8, possibly only part of a character; None if the server does not report it. `top_logprobs` are the
    most likely tokens at this position, as many as were requested (OpenAI's API reference, `logprobs`).
    """

    token: str
    logprob: float
    bytes: bytes | None = None
    top_logprobs: list[TokenLogprob] = field(default_factory=list)


class ToolResult(Struct, frozen=True, kw_only=True):
    """The result of one tool call in a run.

    `content` is the text sent to the model and `value` the handler's return value. `error` is set if the call failed,
    `repeated` if the call was not run because the model had made the same call before. `seconds` is the run time of the
    handler. `images` are data URIs of the images that the handler returned; `content` names them `[image 1]` and so on.
    """

    call: ToolCall
    content: str
    value: Any = None
    error: LMStudioError | None = None
    repeated: bool = False
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    @property
    def message(self) -> Message:
        """The message for the model.

        Its images are sent in a user message after the results of the round.
        """
        if not self.images:
            return Message(role="tool", content=self.content, tool_call_id=self.call.id)
        images = [{"type": "image_url", "image_url": {"url": url}} for url in self.images]
        parts: list[dict[str, Any]] = [{"type": "text", "text": self.content}, *images]
        return Message(role="tool", content=parts, tool_call_id=self.call.id)


class Round(Struct, frozen=True, kw_only=True):
    """One answer of the model in a run, and the results of its tool calls in the same order."""

    reply: Reply
    results: list[ToolResult] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """The messages that the round adds to the history: the answer, then the results."""
        return [self.reply.message, *(result.message for result in self.results)]

    @property
    def problems(self) -> list[Problem]:
        """The problems of the answer and of the arguments of its calls."""
        return [*self.reply.problems, *(problem for result in self.results for problem in result.problems)]


class Reply(Struct, frozen=True, kw_only=True):
    """A complete answer.

    `content` has no tool markup, no reasoning and no surrounding white space. `finish_reason` is `"stop"`, `"length"`,
    `"tool_calls"` or the server's own value, and `"tool_calls"` whenever there are calls; it is `""` only on the `partial`
    of an error. `problems` lists everything that was repaired, changed or dropped. `server_calls` are the tool calls that
    the server ran itself. `logprobs` has one entry for each token of the answer, markup included, if they were requested
    and the server sent them. `raw` is the response body, or the list of stream events, as the server sent them. After
    `run()`, `rounds` has every answer with the results of its calls, `messages` what the run adds to the history, and
    `usage` the sum over all rounds. `cache` is `"hit"` for an answer from the cache, `"shared"` for one that another request
    received at the same time, `"miss"` for a new one, None if no cache was used.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: str = ""
    model: str = ""
    id: str = ""
    usage: Usage | None = None
    stats: Stats = Stats()
    problems: list[Problem] = field(default_factory=list)
    model_info: ModelDetails | None = None
    runtime: Runtime | None = None
    server_calls: list[ServerCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    raw: bytes | list[bytes] = b""
    rounds: list[Round] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    cache: CacheResult | None = None

    @property
    def message(self) -> Message:
        """The assistant message to append to the history."""
        return Message(role="assistant", content=self.content, tool_calls=tuple(self.tool_calls))

    def to_dict(self) -> dict[str, Any]:
        """Return the reply as plain data, ready for JSON.

        `content` is `{"message": text, "action": first call or None, "actions": all calls}`, a call as `{"name", "args"}`.
        Beside it: `reasoning`, `tool_calls` (each `id`, `name`, `arguments`), `finish_reason`, `id`, `model`, `usage` (None if
        the server reported none) and `problems` (each `code`, `detail`).
        """
        actions = [{"name": call.name, "args": call.arguments} for call in self.tool_calls]
        return {
            "content": {"message": self.content, "action": actions[0] if actions else None, "actions": actions},
            "reasoning": self.reasoning,
            "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in self.tool_calls],
            "finish_reason": self.finish_reason,
            "id": self.id,
            "model": self.model,
            "usage": self.usage.to_dict() if self.usage else None,
            "problems": [{"code": problem.code, "detail": problem.detail} for problem in self.problems],
        }

    def __str__(self) -> str:
        return self.content

    def _repr_markdown_(self) -> str:
        """Return the text for notebooks, which show a reply as Markdown."""
        return self.content
