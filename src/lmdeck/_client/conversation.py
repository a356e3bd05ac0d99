"""`lm.conversation()`: LM Studio's own chat, whose history the server stores.

The server also runs plugins and MCP servers for it. The id of the last response identifies the stored conversation. The history
is stored here as well, so that it can be sent again if the server has not stored it, or no longer has it.

Source: LM Studio docs `2_rest/chat.md`, `stateful-chats.mdx`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Self, TypeVar

from msgspec import Struct

from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.chat import final_reply
from lmdeck._plans.endpoints import NATIVE, begin_endpoint
from lmdeck._plans.generation import read_whole
from lmdeck._plans.session import Session
from lmdeck._requests.other_endpoints import as_message, native_input, transcript
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.errors import APIError
from lmdeck.images import ImageSource
from lmdeck.messages import Message, Problem, Reply

TransportT = TypeVar("TransportT")
NOT_STORED = "The server has not stored the last response"
_RESPONSE_ID = re.compile(r"previous[ _]response|response[ _]id|resp_\w+", re.IGNORECASE)


class ConversationSpec(Struct, frozen=True, kw_only=True):
    """The options sent with every turn of a conversation."""

    model: str | None = None
    integrations: tuple[str | Mapping[str, Any], ...] = ()
    system_prompt: str | None = None
    store: bool = True
    recover: bool = False
    options: Mapping[str, Any] = {}


class _Conversation(Generic[TransportT]):
    """The base class of both conversations: the turns so far, and the plan of the next one."""

    def __init__(
        self,
        session: Session,
        transport: Callable[[], TransportT],
        spec: ConversationSpec,
        response_id: str | None = None,
        history: Iterable[Message] = (),
    ) -> None:
        self._session = session
        self._transport = transport
        self._spec = spec
        self._response_id = response_id
        self._history = list(history)

    @property
    def response_id(self) -> str | None:
        """The id of the last response, which the next turn continues; None before the first one.

        It is also None if the server has not stored the last response, as with `store=False`: the next turn sends the history.
        """
        return self._response_id

    @property
    def history(self) -> list[Message]:
        """The messages that this object has sent and received so far."""
        return list(self._history)

    def branch(self) -> Self:
        """Return an independent conversation that continues from here; this one is unchanged."""
        return type(self)(self._session, self._transport, self._spec, self._response_id, self._history)

    def _turn(self, text: str, images: Sequence[ImageSource], *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
        """Send a user message, and record the turn once the answer is complete."""
        fixes = CompatibilityFixes(self._session.settings.without_rules)
        content = native_input(text, images, fixes)
        if self._history and not self._response_id:
            answer = yield from self._send_all(content, NOT_STORED, stream=stream, problems=fixes.problems)
        else:
            try:
                answer = yield from self._send(content, self._response_id, stream=stream, problems=fixes.problems)
            except APIError as error:
                if not (self._spec.recover and self._response_id and _is_unknown_response(error)):
                    raise
                reason = f"The server no longer had {self._response_id}"
                answer = yield from self._send_all(content, reason, stream=stream, problems=fixes.problems)
        answer.when_finished(lambda: self._record_turn(as_message(content), answer))
        return answer

    def _send_all(
        self,
        content: str | list[dict[str, Any]],
        reason: str,
        *,
        stream: bool,
        problems: Sequence[Problem],
    ) -> Plan[ResponseStream[ChatReader]]:
        """Send the history and a new message as the first turn of another stored conversation."""
        note = Problem("history_replayed", f"{reason}: the history was sent again.")
        whole = transcript(self._history, content)
        return (yield from self._send(whole, None, stream=stream, problems=[*problems, note]))

    def _send(
        self,
        content: str | list[dict[str, Any]],
        previous: str | None,
        *,
        stream: bool,
        problems: Sequence[Problem],
    ) -> Plan[ResponseStream[ChatReader]]:
        spec = self._spec
        fields = {
            "input": content,
            "system_prompt": spec.system_prompt if previous is None else None,
            "previous_response_id": previous,
            "integrations": list(spec.integrations) or None,
            "store": None if spec.store else False,
            **spec.options,
        }
        return (yield from begin_endpoint(self._session, NATIVE, spec.model, fields, stream=stream, problems=problems))

    def _record_turn(self, content: Message, answer: ResponseStream[ChatReader]) -> None:
        reply = answer.reader.reply()
        self._response_id = reply.id or None
        self._history += [content, reply.message]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} model={self._spec.model!r} response_id={self._response_id!r}>"


def _is_unknown_response(error: APIError) -> bool:
    """Whether the server rejected the id of the last response."""
    return error.param == "previous_response_id" or _RESPONSE_ID.search(error.message) is not None


class Conversation(_Conversation[Transport]):
    """A conversation of the sync client; one turn at a time, `branch` for more."""

    def send(self, text: str, *, images: Sequence[ImageSource] = ()) -> Reply:
        """Send a user message, and return the reply.

        Its `server_calls` are the tools that the server ran.

        Raises:
            LMStudioError: The answer is not complete; the class shows the reason, `hint` what to do.
        """
        return final_reply(drive(read_whole(self._turn(text, images, stream=False)), self._transport()))

    def stream(self, text: str, *, images: Sequence[ImageSource] = ()) -> ChatStream:
        """Send a user message, and return a stream of chunks.

        `chunk.event` is LM Studio's own event.

        Raises:
            LMStudioError: The stream raises it when it is read.
        """
        begin = partial(self._turn, text, images, stream=True)
        return ChatStream(self._transport(), begin)


class AsyncConversation(_Conversation[AsyncTransport]):
    """A conversation of the async client; one turn at a time, `branch` for more."""

    async def send(self, text: str, *, images: Sequence[ImageSource] = ()) -> Reply:
        """Async version of `Conversation.send`."""
        return final_reply(await drive_async(read_whole(self._turn(text, images, stream=False)), self._transport()))

    def stream(self, text: str, *, images: Sequence[ImageSource] = ()) -> AsyncChatStream:
        """Async version of `Conversation.stream`."""
        begin = partial(self._turn, text, images, stream=True)
        return AsyncChatStream(self._transport(), begin)
