"""The builder of `Chat` and `AsyncChat`.

It is immutable: each method returns a new one, so a chat can be stored and branched.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from msgspec.structs import replace

from lmdeck._arguments import checked_list, checked_model, checked_text, wrong_type
from lmdeck._compatibility import ALL, check_rules
from lmdeck._plans.session import Session
from lmdeck._requests.chat import ChatSpec, checked_options, checked_tool, expects_one_call, tool_name
from lmdeck._requests.history import checked_messages
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Message, Reply, ToolCall, read_call
from lmdeck.tools.registry import Offer, offered_tool

if TYPE_CHECKING:
    from lmdeck._agent.limits import AgentLimits
    from lmdeck._agent.loop import AgentEffect, PendingRound
    from lmdeck._client.paused_run import Decisions, PausedRun
    from lmdeck._plans.structured import OutputRequest, OutputType
    from lmdeck.cache import Cache
    from lmdeck.images import ImageSource
    from lmdeck.model_info import ReasoningLevel

HOUR = 3600
TOOL_CHOICE_HINT = 'Use "auto", "none", "required", or the name of a tool.'
TransportT = TypeVar("TransportT")


class Builder(Generic[TransportT]):
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
        """Set the model; None means the client's default, or a loaded model.

        Raises:
            ConfigurationError: It is neither text nor None.
        """
        return self._replace(model=checked_model(model))

    def with_system(self, text: str) -> Self:
        """Set the system message, which replaces an earlier one.

        Raises:
            ConfigurationError: `text` is not text.
        """
        message = Message(role="system", content=checked_text(text, "A system message"))
        messages = self._spec.messages
        rest = messages[1:] if messages and _role(messages[0]) == "system" else messages
        return self._replace(messages=(message, *rest))

    def with_messages(self, messages: Iterable[Message | Mapping[str, Any]]) -> Self:
        """Add messages: OpenAI-style dicts or `Message` values.

        Raises:
            ConfigurationError: One of them is neither, or `messages` is a single message.
        """
        return self._replace(messages=(*self._spec.messages, *checked_messages(messages)))

    def user(self, text: str, images: Sequence[ImageSource] = ()) -> Self:
        """Add a user message, with images: paths, bytes or data URIs of PNG and JPEG files.

        If Pillow is installed (extra `images`), WebP, GIF (its first frame) and BMP are converted to PNG, and images of more
        than 26,214,400 pixels are scaled down, which `reply.problems` reports. `lm.fetch_image(url)` returns the bytes of an
        image on the web.

        Raises:
            ConfigurationError: `text` is not text, `images` is not a list, or an image cannot be read, is too large, or is not
                of a known format.
            InvalidRequestError: An image is a URL, or LM Studio does not accept its format or size and Pillow is not installed.
        """
        checked_text(text, "A user message")
        if not images:
            return self._replace(messages=(*self._spec.messages, Message(role="user", content=text)))
        from lmdeck._requests.images import checked_images, image_part

        unchanged = "images" in (*self._spec.without_rules, *self._session.settings.without_rules)
        shown = [image_part(image, unchanged=unchanged) for image in checked_images(images)]
        message = Message(role="user", content=[{"type": "text", "text": text}, *shown])
        return self._replace(messages=(*self._spec.messages, message))

    def assistant(self, text: str, tool_calls: Sequence[ToolCall] = ()) -> Self:
        """Add an assistant message.

        Raises:
            ConfigurationError: `text` is not text, or `tool_calls` is not a list of calls.
        """
        calls = checked_list(tool_calls, "tool_calls", "Pass `reply.tool_calls`.")
        text = checked_text(text, "An assistant message")
        message = Message(role="assistant", content=text, tool_calls=tuple(map(read_call, calls)))
        return self._replace(messages=(*self._spec.messages, message))

    def tool_result(self, call: ToolCall | str, content: object) -> Self:
        """Add the result of a tool call: text, an `lmdeck.Image`, or data for JSON.

        `call` is the call or its id.

        Raises:
            ConfigurationError: `call` is neither, or an image in the result cannot be read.
            InvalidRequestError: LM Studio does not accept an image in it.
            TypeError: JSON cannot represent the result.
        """
        from lmdeck._requests.tool_images import tool_message

        id_ = call.id if isinstance(call, ToolCall) else call
        if not isinstance(id_, str):
            raise wrong_type("call", "a ToolCall or its id", call, "Pass a call of `reply.tool_calls`.")
        return self._replace(messages=(*self._spec.messages, tool_message(id_, content)))

    def with_tools(self, tools: Iterable[Offer]) -> Self:
        """Set the offered tools, in place of earlier ones.

        They are `Tool` values, plain functions, OpenAI-style dicts, or registered names.

        Raises:
            ConfigurationError: A tool has no name or cannot be described, two have the same name, or `tools` is a single tool.
            UnknownToolError: There is no registered tool of that name.
        """
        listed = checked_list(tools, "tools", "Pass a list: `with_tools([tool])`, or `with_tools([])` for none.")
        offered = [offered_tool(tool, self._session.tools) for tool in listed]
        checked = tuple(checked_tool(tool) for tool in offered)
        names = [tool["function"]["name"] for tool in checked]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"Two tools are named {twice[0]!r}.", hint="Choose a unique name for every tool.")
        return self._replace(tools=checked, handlers=tuple(tool for tool in offered if not isinstance(tool, Mapping)))

    def with_tool_choice(self, choice: str | Mapping[str, Any] | None) -> Self:
        """Set whether tools are called: `"auto"`, `"none"`, `"required"`, or the name of a tool.

        Raises:
            ConfigurationError: It is neither text, nor OpenAI's dict for a tool, nor None.
        """
        if choice is not None and not isinstance(choice, (str, Mapping)):
            raise wrong_type("A tool choice", "text, a dict or None", choice, TOOL_CHOICE_HINT)
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
            ConfigurationError: `ttl` is not a number of at least a second.
        """
        if ttl is False:
            return self._replace(cache_control="no-cache, no-store")
        seconds = HOUR if ttl is True else ttl
        if not _is_age(seconds):
            raise ConfigurationError(
                f"An answer cannot be cached for {ttl!r} seconds.", hint="Pass 1 or more, or False for no cache."
            )
        return self._replace(cache_control=f"max-age={int(seconds)}")

    def with_cache(self, cache: Cache) -> Self:
        """Use this cache instead of the client's.

        Raises:
            ConfigurationError: It is not a `Cache`.
        """
        from lmdeck.cache import Cache

        if not isinstance(cache, Cache):
            raise wrong_type("cache", "a Cache", cache, 'Pass `lmdeck.cache.Cache.open("memory:")`.')
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


def _is_age(seconds: object) -> bool:
    """Whether a value is a number of at least one second."""
    return isinstance(seconds, (int, float)) and 1 <= seconds < inf


def _role(message: Message | Mapping[str, Any]) -> object:
    return message.role if isinstance(message, Message) else message.get("role")
