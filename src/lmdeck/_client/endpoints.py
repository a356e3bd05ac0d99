"""`lm.responses` and `lm.messages`: OpenAI's and Anthropic's endpoints.

They return the `Reply` and the streams of a chat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from lmdeck._arguments import checked_list
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.chat import final_reply
from lmdeck._plans.endpoints import MESSAGES, RESPONSES, Endpoint, begin_endpoint
from lmdeck._plans.generation import read_whole
from lmdeck._plans.session import Session
from lmdeck._requests.history import checked_messages
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.messages import Message, Reply

DEFAULT_MAX_TOKENS = 4096  # of `/v1/messages`, which requires a limit
TransportT = TypeVar("TransportT")


def checked_input(input_: str | Iterable[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    """Return the `input` of a response.

    Raises:
        ConfigurationError: It is neither text nor a list.
    """
    if isinstance(input_, str):
        return input_
    hint = "Pass a text or a list of items."
    return checked_list(input_, "input", hint, expected="text or a list of items")


class _Endpoint(Generic[TransportT]):
    """The base class of all endpoints: the client's session and transport."""

    _endpoint: Endpoint

    def __init__(self, session: Session, transport: Callable[[], TransportT]) -> None:
        self._session = session
        self._transport = transport

    def _begin(self, model: str | None, body: Mapping[str, Any], *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
        return begin_endpoint(self._session, self._endpoint, model, body, stream=stream)


class Responses(_Endpoint[Transport]):
    """Responses of the sync client, over `/v1/responses`.

    Source: LM Studio docs `3_openai-compat/responses.md`.
    """

    _endpoint = RESPONSES

    def create(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # sent to the server unchanged,
    ) -> Reply:
        """Send the request, and return the complete reply.

        Options are sent unchanged: `instructions`, `tools` (functions and remote MCP), `reasoning={"effort": "low"}`,
        `previous_response_id`, `store`, `max_output_tokens`, `temperature` and so on.

        Raises:
            LMStudioError: The answer is not complete; the class says why, `hint` what to do.
        """
        body = {"input": checked_input(input), **options}
        return final_reply(drive(read_whole(self._begin(model, body, stream=False)), self._transport()))

    def stream(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # sent to the server unchanged,
    ) -> ChatStream:
        """Send the request, and return a stream; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        body = {"input": checked_input(input), **options}
        return ChatStream(self._transport(), partial(self._begin, model, body, stream=True))


class Messages(_Endpoint[Transport]):
    """Messages of the sync client, over `/v1/messages`.

    Source: LM Studio docs `4_anthropic-compat/messages.md`.
    """

    _endpoint = MESSAGES

    def create(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # sent to the server unchanged,
    ) -> Reply:
        """Send the request, and return the complete reply.

        Options are sent unchanged: `system`, `tools`, `tool_choice`, `temperature`, `stop_sequences`,
        `thinking` and so on.

        Raises:
            LMStudioError: The answer is not complete; the class says why, `hint` what to do.
        """
        body = {"messages": checked_messages(messages), "max_tokens": max_tokens, **options}
        return final_reply(drive(read_whole(self._begin(model, body, stream=False)), self._transport()))

    def stream(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # sent to the server unchanged,
    ) -> ChatStream:
        """Send the request, and return a stream; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        body = {"messages": checked_messages(messages), "max_tokens": max_tokens, **options}
        return ChatStream(self._transport(), partial(self._begin, model, body, stream=True))


class AsyncResponses(_Endpoint[AsyncTransport]):
    """Responses of the async client, over `/v1/responses`.

    Source: LM Studio docs `3_openai-compat/responses.md`.
    """

    _endpoint = RESPONSES

    async def create(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # sent to the server unchanged,
    ) -> Reply:
        """Async version of `Responses.create`."""
        body = {"input": checked_input(input), **options}
        return final_reply(await drive_async(read_whole(self._begin(model, body, stream=False)), self._transport()))

    def stream(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # sent to the server unchanged,
    ) -> AsyncChatStream:
        """Async version of `Responses.stream`."""
        body = {"input": checked_input(input), **options}
        return AsyncChatStream(self._transport(), partial(self._begin, model, body, stream=True))


class AsyncMessages(_Endpoint[AsyncTransport]):
    """Messages of the async client, over `/v1/messages`.

    Source: LM Studio docs `4_anthropic-compat/messages.md`.
    """

    _endpoint = MESSAGES

    async def create(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # sent to the server unchanged,
    ) -> Reply:
        """Async version of `Messages.create`."""
        body = {"messages": checked_messages(messages), "max_tokens": max_tokens, **options}
        return final_reply(await drive_async(read_whole(self._begin(model, body, stream=False)), self._transport()))

    def stream(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # sent to the server unchanged,
    ) -> AsyncChatStream:
        """Async version of `Messages.stream`."""
        body = {"messages": checked_messages(messages), "max_tokens": max_tokens, **options}
        return AsyncChatStream(self._transport(), partial(self._begin, model, body, stream=True))
