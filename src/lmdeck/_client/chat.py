"""The chat builder: immutable, so that a chat can be kept and branched.

Modules that a chat without tools does not need are imported by the methods that use them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack, overload

from msgspec.structs import replace

from lmdeck._client.plans.chat import begin_chat, final_reply
from lmdeck._client.plans.generation import read_whole
from lmdeck._client.session import Session
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._compatibility import ALL, check_rules
from lmdeck._pipeline.run_plan import drive, drive_async, run_plan, run_plan_async
from lmdeck._requests.chat import ChatSpec, checked_options, checked_tool, expects_one_call, tool_name
from lmdeck._transport import AsyncTransport, Transport
from lmdeck._transport.interruption import Interruption
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError
from lmdeck.events import AgentEvent, Chunk
from lmdeck.messages import Message, Reply, ToolCall
from lmdeck.tools.registry import Offer, offered_tool
from lmdeck.tools.tool import Tool

if TYPE_CHECKING:
    from lmdeck._agent.approvals import Approve, PausingApprove
    from lmdeck._agent.limits import AgentLimits
    from lmdeck._agent.loop import AgentEffect, AskModel, PendingRound
    from lmdeck._client.approve_callback import AnyApprove
    from lmdeck._client.paused_run import Decisions, PausedRun
    from lmdeck._client.run import AsyncChatRun, ChatRun
    from lmdeck._client.structured import AsyncParseStream, OutputRequest, OutputType, ParseStream
    from lmdeck.cache import Cache
    from lmdeck.images import ImageSource
    from lmdeck.model_info import ReasoningLevel

HOUR = 3600
TransportT = TypeVar("TransportT")
T = TypeVar("T")


class RunLimits(TypedDict, total=False):
    """The further limits of a run; see `lmdeck._agent.limits.AgentLimits`."""

    max_failures: int
    max_repeats: int
    tool_timeout: float | None


def limits_of(max_rounds: int, limits: RunLimits) -> AgentLimits:
    """Return the limits of a run.

    Raises:
        ConfigurationError: One of them is out of range.
    """
    from lmdeck._agent.limits import AgentLimits

    return AgentLimits(max_rounds=max_rounds, **limits)


class _Builder(Generic[TransportT]):
    """The base class of both chats; every `with_…` method returns a new chat."""

    __slots__ = ("_session", "_spec", "_transport")

    def __init__(self, session: Session, transport: Callable[[], TransportT], spec: ChatSpec) -> None:
        self._session = session
        self._transport = transport
        self._spec = spec

    @property
    def spec(self) -> ChatSpec:
        """The content of the request, as a value."""
        return self._spec

    @property
    def settings(self) -> Settings:
        """The settings of the client."""
        return self._session.settings

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages so far, in OpenAI's format."""
        return [message.to_dict() if isinstance(message, Message) else dict(message) for message in self._spec.messages]

    @property
    def model(self) -> str | None:
        """The requested model; None leaves the choice to the client."""
        return self._spec.model

    def with_model(self, model: str | None) -> Self:
        """Set the model; None means the client's default, or a loaded model."""
        return self._replace(model=model)

    def with_system(self, text: str) -> Self:
        """Set the system message, which replaces an earlier one."""
        messages = self._spec.messages
        rest = messages[1:] if messages and _role(messages[0]) == "system" else messages
        return self._replace(messages=(Message(role="system", content=text), *rest))

    def with_messages(self, messages: Iterable[Message | Mapping[str, Any]]) -> Self:
        """Add messages: OpenAI-style dicts or `Message` values.

        Raises:
            ConfigurationError: One of them is neither.
        """
        added = tuple(messages)
        for message in added:
            if not isinstance(message, (Message, Mapping)):
                raise ConfigurationError(
                    f"A message must be a dict or a Message, not {type(message).__name__}.",
                    hint='Use {"role": "user", "content": "…"}.',
                )
        return self._replace(messages=(*self._spec.messages, *added))

    def user(self, text: str, images: Sequence[ImageSource] = ()) -> Self:
        """Add a user message, with images: paths, bytes or data URIs of PNG and JPEG files.

        If Pillow is installed (extra `images`), WebP, GIF (its first frame) and BMP are converted to PNG, and images of more
        than 26,214,400 pixels are scaled down, which `reply.problems` reports. `lm.fetch_image(url)` returns the bytes of an
        image on the web.

        Raises:
            ConfigurationError: An image cannot be read, is too large, or is not of a known format.
            InvalidRequestError: An image is a URL, or LM Studio does not accept its format or size and Pillow is not installed.
        """
        if not images:
            return self._replace(messages=(*self._spec.messages, Message(role="user", content=text)))
        from lmdeck._requests.images import image_part

        unchanged = "images" in (*self._spec.without_rules, *self._session.settings.without_rules)
        parts = [{"type": "text", "text": text}, *(image_part(image, unchanged=unchanged) for image in images)]
        return self._replace(messages=(*self._spec.messages, Message(role="user", content=parts)))

    def assistant(self, text: str, tool_calls: Sequence[ToolCall] = ()) -> Self:
        """Add an assistant message."""
        message = Message(role="assistant", content=text, tool_calls=tuple(tool_calls))
        return self._replace(messages=(*self._spec.messages, message))

    def tool_result(self, call: ToolCall | str, content: object) -> Self:
        """Add the result of a tool call: text, an `lmdeck.Image`, or data for JSON.

        `call` is the call or its id.

        Raises:
            ConfigurationError: An image in it cannot be read.
            InvalidRequestError: LM Studio does not accept an image in it.
            TypeError: JSON cannot represent the result.
        """
        from lmdeck._requests.tool_images import tool_message

        id_ = call.id if isinstance(call, ToolCall) else call
        return self._replace(messages=(*self._spec.messages, tool_message(id_, content)))

    def with_tools(self, tools: Iterable[Offer]) -> Self:
        """Set the offered tools, in place of earlier ones.

        They are `Tool` values, plain functions, OpenAI-style dicts, or registered names.

        Raises:
            ConfigurationError: A tool has no name or cannot be described, or two have the same name.
            UnknownToolError: There is no registered tool of that name.
        """
        offered = [offered_tool(tool, self._session.tools) for tool in tools]
        checked = tuple(checked_tool(tool) for tool in offered)
        names = [tool["function"]["name"] for tool in checked]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"Two tools are named {twice[0]!r}.", hint="Choose a unique name for every tool.")
        return self._replace(tools=checked, handlers=tuple(tool for tool in offered if isinstance(tool, Tool)))

    def with_tool_choice(self, choice: str | Mapping[str, Any] | None) -> Self:
        """Set whether tools are called: `"auto"`, `"none"`, `"required"`, or the name of a tool."""
        return self._replace(tool_choice=choice)

    def with_options(self, **options: Any) -> Self:  # sent to the server unchanged
        """Set options of the request, such as `temperature`, `max_tokens`, `stop`, `seed` and `ttl`.

        They are sent to the server unchanged; None removes an option.

        Raises:
            ConfigurationError: The builder has a separate method for an option, such as `model`.
        """
        merged = {**self._spec.options, **checked_options(options)}
        return self._replace(options={name: value for name, value in merged.items() if value is not None})

    def with_reasoning(self, level: ReasoningLevel | None) -> Self:
        """Set how much the model reasons before it answers; None leaves it to the server.

        The level is translated for the endpoint, and checked against the levels in the server's list that the model supports
        (`ModelInfo.reasoning`). `"on"` is the default level of a model that has only levels.

        Raises:
            ConfigurationError: It is not one of the levels, or, when the chat is sent, the model does not support it.
        """
        if level is not None:
            from lmdeck._requests.reasoning import check_level

            check_level(level)
        return self._replace(reasoning=level)

    def with_context_guard(self, action: Literal["trim", "raise", "summarise"] | None = "trim") -> Self:
        """Check whether the chat fits in the context of its loaded model before it is sent.

        `"trim"` drops the oldest exchanges, which a problem `context_trimmed` reports; `"summarise"` lets the model summarise
        them first, with a further request and a problem `context_summarised`; `"raise"` raises a `ContextLengthError`; None
        disables the check. `max_tokens`, or 256 tokens, are reserved for the answer. Tokens are counted as by
        `lm.count_tokens`.

        Raises:
            ConfigurationError: `action` is not one of these.
        """
        if action not in ("trim", "raise", "summarise", None):
            hint = 'Use "trim", "summarise", "raise" or None.'
            raise ConfigurationError(f"{action!r} is not a context guard.", hint=hint)
        return self._replace(context_guard=action)

    def with_strict(self, strict: bool = True) -> Self:  # reads as a sentence
        """Raise an error if a tool call cannot be read, or if a demanded call is missing.

        The errors are `ToolCallParseError` and `ToolCallMissingError`; without this, both are problems of the reply.
        """
        return self._replace(strict=strict)

    def cached(self, ttl: float | bool = HOUR) -> Self:
        """Accept a cached answer that is at most `ttl` seconds old; else, cache the new one.

        The temperature has no influence on this. With False, request a new answer that is not cached. The cache is the
        client's (`LMStudio(cache=…)`) or that of an lmdeck gateway, to which this is sent as the header `Cache-Control`.
        `reply.cache` reports the result.

        Raises:
            ConfigurationError: `ttl` is less than a second.
        """
        if ttl is False:
            return self._replace(cache_control="no-cache, no-store")
        seconds = int(HOUR if ttl is True else ttl)
        if seconds < 1:
            raise ConfigurationError(
                f"An answer cannot be cached for {ttl!r} seconds.", hint="Pass 1 or more, or False for no cache."
            )
        return self._replace(cache_control=f"max-age={seconds}")

    def with_cache(self, cache: Cache) -> Self:
        """Use this cache instead of the client's."""
        return type(self)(self._session.with_cache(cache), self._transport, self._spec)

    def without_rules(self, *names: str) -> Self:
        """Disable rules that adapt the request to LM Studio; without names, all of them.

        `lmdeck.rules()` lists them. The client's setting `without_rules` disables rules for every chat.

        Raises:
            ConfigurationError: A name is not the name of a rule.
        """
        return self._replace(without_rules=(*self._spec.without_rules, *check_rules(names or (ALL,))))

    def _run_plan(
        self, limits: AgentLimits, resumed: PendingRound | None
    ) -> Generator[AgentEffect, Any, Reply | PendingRound]:
        from lmdeck._agent.loop import agent_plan

        tools = {tool.name: tool for tool in self._spec.handlers}
        names = {tool_name(tool) for tool in self._spec.tools}
        elsewhere = frozenset(names - set(tools))
        return agent_plan(tools, elsewhere, limits, one_at_a_time=expects_one_call(self._spec.options), resumed=resumed)

    def _resumed(self, paused: PausedRun, decisions: Decisions) -> tuple[ChatSpec, PendingRound]:
        """Return the paused run's request, and the round to continue.

        Raises:
            ConfigurationError: A call has no decision, a tool is not offered, or the run was resumed before.
        """
        from lmdeck._client.paused_run import RESUMED

        pending = paused.decide(decisions)
        offered = {tool.name for tool in self._spec.handlers}
        missing = [call.name for call in paused.calls if call.name not in offered]
        if missing:
            raise ConfigurationError(
                f"The paused run calls {missing[0]!r}, for which this chat has no handler.",
                hint="Resume it with a chat that has the same tools.",
            )
        RESUMED.add(paused)
        spec = replace(self._spec, messages=tuple(paused.messages), model=self._spec.model or paused.model)
        return spec, pending

    def _for_output(self, output_type: OutputType[Any], request: OutputRequest) -> Self:
        """Return the chat that requests an object, by `response_format` or by an instruction."""
        chat = self if request.previous is None else self.assistant(request.previous.content)
        chat = chat.user(request.instruction) if request.instruction else chat
        return chat.with_options(response_format=output_type.response_format if request.uses_schema else None)

    def _replace(self, **changes: Any) -> Self:  # the fields of ChatSpec
        return type(self)(self._session, self._transport, replace(self._spec, **changes))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._spec.model!r} messages={len(self._spec.messages)}>"


class Chat(_Builder[Transport]):
    """A chat of the sync client."""

    __slots__ = ()

    def parse(self, kind: type[T], *, attempts: int = 1) -> T:
        """Request an object of a type.

        The type is, for example, a dataclass, a TypedDict, a msgspec Struct or a pydantic model. The server makes the model
        follow its schema if it supports that. JSON in the reasoning, in a fence or in prose is found and repaired. An answer
        that still does not match is requested again, up to `attempts` times, with its errors.

        Raises:
            StructuredOutputError: No answer matches the type; `raw` is the text of the last one.
            ConfigurationError: The type cannot be described as JSON Schema.
            LMStudioError: An answer failed.
        """
        from lmdeck._client.structured import OutputType, plan_attempts

        output_type = OutputType(kind)
        return run_plan(
            plan_attempts(output_type, attempts), lambda request: self._for_output(output_type, request).send()
        )[0]

    def parse_stream(self, kind: type[T]) -> ParseStream[T]:
        """Request an object of a type, and return a stream of its partial values as plain data."""
        from lmdeck._client.structured import OutputRequest, OutputType, ParseStream

        output_type = OutputType(kind)
        return ParseStream(self._for_output(output_type, OutputRequest()).stream(), output_type)

    @overload
    def run(self, max_rounds: int = 8, *, approve: Approve | None = None, **limits: Unpack[RunLimits]) -> Reply: ...
    @overload
    def run(
        self, max_rounds: int = 8, *, approve: PausingApprove | Literal["pause"], **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun: ...
    def run(self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]) -> Reply | PausedRun:
        """Send the chat and run the tools that the model calls, until it answers.

        The calls of one answer run at once, in threads; their results are sent to the model in order. Errors are results for
        the model, too. `approve` is asked about each call first: it returns True, False or the reason for a refusal, and may be
        async. If it returns `lmdeck.PAUSE`, or is `"pause"`, the run ends with a `PausedRun` before any call of that answer is
        run; `resume` continues it. The reply has `rounds`, `messages` (what the run adds to the history) and the summed
        `usage`. A call of a tool without a handler ends the run.

        Raises:
            MaxRoundsError: The model has not answered after `max_rounds`, or only repeats itself.
            ToolError: `max_failures` consecutive calls failed; this is the last failure.
            ToolCallMissingError: `tool_choice` demanded a call, and there is none.
            LMStudioError: An answer of the model failed.
        """
        return _outcome(self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=False))

    def run_stream(self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]) -> ChatRun:
        """Run like `run`, and yield every chunk and tool event of all rounds as it happens."""
        return self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=True)

    def resume(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> Reply | PausedRun:
        """Resume a paused run: run the allowed calls, report the others to the model, and continue.

        `decisions` has, by call id, True, False or the reason for a refusal; True or False alone applies to all calls. Model
        and messages are those of the paused run, tools and options those of this chat. `max_rounds` includes the rounds before
        the pause. `approve` decides on later calls, which pause the run again by default. A run can be resumed only once: see
        `PausedRun`.

        Raises:
            ConfigurationError: A call has no decision, this chat has no handler for it, or the run was resumed before.
            LMStudioError: As in `run`.
        """
        spec, pending = self._resumed(paused, decisions)
        return _outcome(self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=False))

    def resume_stream(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> ChatRun:
        """Resume like `resume`, and yield every chunk and tool event from there on as it happens."""
        spec, pending = self._resumed(paused, decisions)
        return self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=True)

    def _run(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: AnyApprove,
        resumed: PendingRound | None = None,
        *,
        streamed: bool,
    ) -> ChatRun:
        from lmdeck._client.approve_callback import approver
        from lmdeck._client.run import ChatRun

        return ChatRun(partial(self._steps, spec, limits, approver(approve), resumed, streamed=streamed))

    def _steps(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: PausingApprove,
        resumed: PendingRound | None,
        interruption: Interruption,
        *,
        streamed: bool,
    ) -> Generator[AgentEvent, None, Reply | PausedRun]:
        from lmdeck._client.run_agent import run_agent
        from lmdeck._client.run_events import publish_events

        def ask(effect: AskModel) -> ChatStream:
            return self._open(_spec_for_round(spec, effect), stream=streamed)

        steps = run_agent(self._run_plan(limits, resumed), ask, limits, approve, interruption, streamed=streamed)
        model = spec.model or self.settings.model
        return _paused((yield from publish_events(steps, self._session.bus, model)), spec)

    def _open(self, spec: ChatSpec, *, stream: bool) -> ChatStream:
        return ChatStream(self._transport(), partial(begin_chat, self._session, spec, stream=stream))

    def send(self) -> Reply:
        """Send the chat, and return the complete reply.

        Raises:
            LMStudioError: The answer is not complete; the class shows the reason, `hint` what to do.
        """
        begin = begin_chat(self._session, self._spec, stream=False)
        return final_reply(drive(read_whole(begin), self._transport()))

    @overload
    def stream(self) -> ChatStream: ...
    @overload
    def stream(self, callback: Callable[[Chunk], object]) -> Reply: ...
    def stream(self, callback: Callable[[Chunk], object] | None = None) -> ChatStream | Reply:
        """Send the chat, and return a stream of the answer's chunks.

        With a callback, call it for each chunk and return the reply.

        Raises:
            LMStudioError: With a callback: the answer is not complete. Without: the stream raises it when it is read.
        """
        stream = self._open(self._spec, stream=True)
        if callback is None:
            return stream
        with stream:
            for chunk in stream:
                callback(chunk)
        return stream.reply


class AsyncChat(_Builder[AsyncTransport]):
    """A chat of the async client."""

    __slots__ = ()

    async def parse(self, kind: type[T], *, attempts: int = 1) -> T:
        """Async version of `Chat.parse`."""
        from lmdeck._client.structured import OutputType, plan_attempts

        output_type = OutputType(kind)
        return (
            await run_plan_async(
                plan_attempts(output_type, attempts), lambda request: self._for_output(output_type, request).send()
            )
        )[0]

    def parse_stream(self, kind: type[T]) -> AsyncParseStream[T]:
        """Async version of `Chat.parse_stream`."""
        from lmdeck._client.structured import AsyncParseStream, OutputRequest, OutputType

        output_type = OutputType(kind)
        return AsyncParseStream(self._for_output(output_type, OutputRequest()).stream(), output_type)

    @overload
    async def run(
        self, max_rounds: int = 8, *, approve: Approve | None = None, **limits: Unpack[RunLimits]
    ) -> Reply: ...
    @overload
    async def run(
        self, max_rounds: int = 8, *, approve: PausingApprove | Literal["pause"], **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun: ...
    async def run(
        self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]
    ) -> Reply | PausedRun:
        """Async version of `Chat.run`, with async tools and `approve`; sync tools run in threads."""
        return await _outcome_async(self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=False))

    def run_stream(
        self, max_rounds: int = 8, *, approve: AnyApprove = None, **limits: Unpack[RunLimits]
    ) -> AsyncChatRun:
        """Async version of `Chat.run_stream`."""
        return self._run(self._spec, limits_of(max_rounds, limits), approve, streamed=True)

    async def resume(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> Reply | PausedRun:
        """Async version of `Chat.resume`."""
        spec, pending = self._resumed(paused, decisions)
        return await _outcome_async(self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=False))

    def resume_stream(
        self,
        paused: PausedRun,
        decisions: Decisions,
        max_rounds: int = 8,
        *,
        approve: AnyApprove = "pause",
        **limits: Unpack[RunLimits],
    ) -> AsyncChatRun:
        """Async version of `Chat.resume_stream`."""
        spec, pending = self._resumed(paused, decisions)
        return self._run(spec, limits_of(max_rounds, limits), approve, pending, streamed=True)

    def _run(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: AnyApprove,
        resumed: PendingRound | None = None,
        *,
        streamed: bool,
    ) -> AsyncChatRun:
        from lmdeck._client.approve_callback import approver
        from lmdeck._client.run import AsyncChatRun

        return AsyncChatRun(self._steps(spec, limits, approver(approve), resumed, streamed=streamed))

    async def _steps(
        self,
        spec: ChatSpec,
        limits: AgentLimits,
        approve: PausingApprove,
        resumed: PendingRound | None,
        *,
        streamed: bool,
    ) -> AsyncGenerator[AgentEvent | Reply | PausedRun, None]:
        from lmdeck._agent.loop import PendingRound
        from lmdeck._client.run_agent import run_agent_async
        from lmdeck._client.run_events import publish_events_async

        def ask(effect: AskModel) -> AsyncChatStream:
            return self._open(_spec_for_round(spec, effect), stream=streamed)

        agent = run_agent_async(self._run_plan(limits, resumed), ask, limits, approve, streamed=streamed)
        model = spec.model or self.settings.model
        async with aclosing(publish_events_async(agent, self._session.bus, model)) as steps:
            async for step in steps:
                yield _paused(step, spec) if isinstance(step, PendingRound) else step

    def _open(self, spec: ChatSpec, *, stream: bool) -> AsyncChatStream:
        return AsyncChatStream(self._transport(), partial(begin_chat, self._session, spec, stream=stream))

    async def send(self) -> Reply:
        """Async version of `Chat.send`."""
        begin = begin_chat(self._session, self._spec, stream=False)
        return final_reply(await drive_async(read_whole(begin), self._transport()))

    @overload
    def stream(self) -> AsyncChatStream: ...
    @overload
    def stream(self, callback: Callable[[Chunk], object]) -> Awaitable[Reply]: ...
    def stream(self, callback: Callable[[Chunk], object] | None = None) -> AsyncChatStream | Awaitable[Reply]:
        """Async version of `Chat.stream`: the callback may be async, and the reply is awaited."""
        stream = self._open(self._spec, stream=True)
        return stream if callback is None else _call_back(stream, callback)


def _spec_for_round(spec: ChatSpec, effect: AskModel) -> ChatSpec:
    """Return the request of a round.

    Only the first may demand a call, or the run would never end.
    """
    choice = spec.tool_choice
    if effect.round > 1 and choice not in (None, "none"):
        choice = "auto"
    return replace(spec, messages=(*spec.messages, *effect.added), tool_choice=choice)


def _paused(outcome: Reply | PendingRound, spec: ChatSpec) -> Reply | PausedRun:
    if isinstance(outcome, Reply):
        return outcome
    from lmdeck._client.paused_run import PausedRun

    return PausedRun.of(outcome, spec)


def _outcome(run: ChatRun) -> Reply | PausedRun:
    for _ in run:
        continue
    return run.outcome


async def _outcome_async(run: AsyncChatRun) -> Reply | PausedRun:
    async for _ in run:
        continue
    return run.outcome


async def _call_back(stream: AsyncChatStream, callback: Callable[[Chunk], object]) -> Reply:
    async with stream:
        async for chunk in stream:
            result = callback(chunk)
            if isinstance(result, Awaitable):
                await result
    return stream.reply


def _role(message: Message | Mapping[str, Any]) -> object:
    return message.role if isinstance(message, Message) else message.get("role")
