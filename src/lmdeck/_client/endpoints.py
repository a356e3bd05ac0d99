"""`lm.responses` and `lm.messages`: OpenAI's and Anthropic's endpoints, with the same `Reply` and stream as a chat's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from lmdeck._client.plans.chat import read_reply
from lmdeck._client.plans.endpoints import MESSAGES, RESPONSES, Endpoint, ask_endpoint
from lmdeck._client.session import Session
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._pipeline import Plan
from lmdeck._pipeline.exchange import Answer
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._requests.chat import ChatSpec
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.messages import Message, Reply

__all__ = ["AsyncMessages", "AsyncResponses", "Messages", "Responses"]

DEFAULT_MAX_TOKENS = 4096  # of `/v1/messages`, which asks for a limit
Route = TypeVar("Route")


class _Endpoint(Generic[Route]):
    """A client's session, the way to its server, and the endpoint."""

    _endpoint: Endpoint

    def __init__(self, session: Session, route: Callable[[], Route]) -> None:
        self._session = session
        self._route = route

    def _plan(self, model: str | None, given: Mapping[str, Any], *, stream: bool) -> Plan[Answer]:
        return (yield from ask_endpoint(self._session, self._endpoint, model, given, stream=stream))

    def _whole(self, model: str | None, given: Mapping[str, Any]) -> Plan[Reply]:
        return (yield from read_reply((yield from self._plan(model, given, stream=False))))


class Responses(_Endpoint[Transport]):
    """Responses of the sync client, over `/v1/responses` (LM Studio docs `3_openai-compat/responses.md`)."""

    _endpoint = RESPONSES

    def create(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # noqa: A002  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> Reply:
        """Ask, and wait for the whole answer.

        Options go to the server as they are: `instructions`, `tools` (functions and remote MCP), `reasoning={"effort": "low"}`,
        `previous_response_id`, `store`, `max_output_tokens`, `temperature` and so on.

        Raises:
            LMStudioError: There is no whole answer; the class says why, `hint` what to do.
        """
        return drive(
            self._whole(model, {"input": input if isinstance(input, str) else list(input), **options}), self._route()
        )

    def stream(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # noqa: A002  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> ChatStream:
        """Ask, and give a stream of the answer's chunks; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        given = {"input": input if isinstance(input, str) else list(input), **options}
        begin = partial(self._plan, model, given, stream=True)
        return ChatStream(self._session, self._route(), ChatSpec(model=model), begin)


class Messages(_Endpoint[Transport]):
    """Messages of the sync client, over `/v1/messages` (LM Studio docs `4_anthropic-compat/messages.md`)."""

    _endpoint = MESSAGES

    def create(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> Reply:
        """Ask, and wait for the whole answer.

        Options go to the server as they are: `system`, `tools`, `tool_choice`, `temperature`, `stop_sequences`,
        `thinking` and so on.

        Raises:
            LMStudioError: There is no whole answer; the class says why, `hint` what to do.
        """
        return drive(
            self._whole(model, {"messages": list(messages), "max_tokens": max_tokens, **options}), self._route()
        )

    def stream(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> ChatStream:
        """Ask, and give a stream of the answer's chunks; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        given = {"messages": list(messages), "max_tokens": max_tokens, **options}
        begin = partial(self._plan, model, given, stream=True)
        return ChatStream(self._session, self._route(), ChatSpec(model=model), begin)


class AsyncResponses(_Endpoint[AsyncTransport]):
    """Responses of the async client, over `/v1/responses` (LM Studio docs `3_openai-compat/responses.md`)."""

    _endpoint = RESPONSES

    async def create(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # noqa: A002  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> Reply:
        """Ask, and wait for the whole answer.

        Options go to the server as they are: `instructions`, `tools` (functions and remote MCP), `reasoning={"effort": "low"}`,
        `previous_response_id`, `store`, `max_output_tokens`, `temperature` and so on.

        Raises:
            LMStudioError: There is no whole answer; the class says why, `hint` what to do.
        """
        return await drive_async(
            self._whole(model, {"input": input if isinstance(input, str) else list(input), **options}), self._route()
        )

    def stream(
        self,
        *,
        input: str | Iterable[Mapping[str, Any]],  # noqa: A002  # OpenAI's name for it
        model: str | None = None,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> AsyncChatStream:
        """Ask, and give a stream of the answer's chunks; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        given = {"input": input if isinstance(input, str) else list(input), **options}
        begin = partial(self._plan, model, given, stream=True)
        return AsyncChatStream(self._session, self._route(), ChatSpec(model=model), begin)


class AsyncMessages(_Endpoint[AsyncTransport]):
    """Messages of the async client, over `/v1/messages` (LM Studio docs `4_anthropic-compat/messages.md`)."""

    _endpoint = MESSAGES

    async def create(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> Reply:
        """Ask, and wait for the whole answer.

        Options go to the server as they are: `system`, `tools`, `tool_choice`, `temperature`, `stop_sequences`,
        `thinking` and so on.

        Raises:
            LMStudioError: There is no whole answer; the class says why, `hint` what to do.
        """
        return await drive_async(
            self._whole(model, {"messages": list(messages), "max_tokens": max_tokens, **options}), self._route()
        )

    def stream(
        self,
        *,
        messages: Iterable[Message | Mapping[str, Any]],
        model: str | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        **options: Any,  # noqa: ANN401  # they go to the server as they are,
    ) -> AsyncChatStream:
        """Ask, and give a stream of the answer's chunks; the server's own events are on `chunk.event`.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        given = {"messages": list(messages), "max_tokens": max_tokens, **options}
        begin = partial(self._plan, model, given, stream=True)
        return AsyncChatStream(self._session, self._route(), ChatSpec(model=model), begin)
