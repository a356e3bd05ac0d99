"""`LMStudio` and `AsyncLMStudio`: one client is one connection pool.

Modules that a chat does not need are imported by the methods that use them, so that the first token arrives early.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from lmdeck._arguments import checked_list, checked_model
from lmdeck._client.base import ClientBase
from lmdeck._client.chat import AsyncChat, Chat, spec_of
from lmdeck._client.stream import AsyncChatStream, ChatStream
from lmdeck._forking import on_fork
from lmdeck._limits import FETCH_SECONDS, MAX_IMAGE_BYTES
from lmdeck._pipeline.calls import HandlerFactory
from lmdeck._pipeline.retry import RetryPolicy
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.session import Session
from lmdeck._requests.chat import ChatSpec
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.config import Settings
from lmdeck.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from lmdeck._client.conversation import AsyncConversation, Conversation
    from lmdeck._client.endpoints import AsyncMessages, AsyncResponses, Messages, Responses
    from lmdeck._client.models import AsyncModels, Models
    from lmdeck.batch.arguments import BatchArguments
    from lmdeck.batch.job import AsyncBatchJob, BatchJob
    from lmdeck.cache import Cache
    from lmdeck.config import ClientSettings
    from lmdeck.decisions import Decisions, QuestionLike
    from lmdeck.images import ImageSource
    from lmdeck.model_info import Health
    from lmdeck.outputs import Completion, Embeddings, TokenCount

EMBED_BATCH = 64
INTEGRATIONS = 'Pass a list: `integrations=["mcp/playwright"]`.'


class LMStudio(ClientBase):
    """A client of LM Studio's local server; safe to share between threads.

    Settings come from the keywords (see `lmdeck.config.Settings` for all of them), the environment (`LMDECK_HOST`, …, and
    `LM_API_TOKEN`), `lmdeck.toml` or `[tool.lmdeck]` in `pyproject.toml`, or their defaults. Nothing is opened until the
    first request. Use it as a context manager, or call `close`.

    `handlers` wrap every request, outermost first (see `lmdeck.handlers`); `retry` replaces the retry policy of the settings;
    `tools` is a registry to share between clients; `headers` are sent with every request. `cache` is the store of answers:
    `"sqlite:///answers.db"`, `"memory:"`, `"redis://…"`, or a `lmdeck.cache.Cache` to share between clients.
    """

    def __init__(
        self,
        *,
        handlers: Iterable[HandlerFactory] = (),
        retry: RetryPolicy | None = None,
        tools: ToolRegistry | None = None,
        headers: Mapping[str, str] | None = None,
        cache: str | Cache | None = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        self._session = Session(
            Settings.resolve(settings),
            handlers=handlers,
            retry=retry,
            tools=tools,
            headers=headers,
            cache=cache,
            caller=threading.get_ident,  # all tasks of a thread: it blocks them all while it waits
        )
        self._transport: Transport | None = None
        self._renew_lock()
        on_fork(self, LMStudio._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # also after a fork: another thread of the parent may have held the old one

    @property
    def models(self) -> Models:
        """The models of the server."""
        from lmdeck._client.models import Models

        return Models(self._session, self._get_transport)

    def chat(self, model: str | None = None, *, strict: bool = False) -> Chat:
        """Return a chat with a model.

        None means the client's default, a loaded model, or the smallest one.

        Raises:
            ConfigurationError: `model` is neither text nor None.
        """
        return Chat(self._session, self._get_transport, ChatSpec(model=checked_model(model), strict=strict))

    def adopt(self, chat: Chat | AsyncChat) -> Chat:
        """Return the same chat for this client; it may have been built with an async client."""
        return Chat(self._session, self._get_transport, spec_of(chat))

    @property
    def responses(self) -> Responses:
        """OpenAI's Responses API: `create` and `stream`."""
        from lmdeck._client.endpoints import Responses

        return Responses(self._session, self._get_transport)

    @property
    def messages(self) -> Messages:
        """Anthropic's Messages API: `create` and `stream`."""
        from lmdeck._client.endpoints import Messages

        return Messages(self._session, self._get_transport)

    def conversation(
        self,
        model: str | None = None,
        *,
        integrations: Sequence[str | Mapping[str, Any]] = (),
        system_prompt: str | None = None,
        store: bool = True,
        recover: bool = False,
        previous_response_id: str | None = None,
        **options: Any,  # sent to the server unchanged
    ) -> Conversation:
        """Return a conversation stored by the server, new or continued.

        `integrations` are plugin ids such as `"mcp/playwright"`, or dicts of plugins and ephemeral MCP servers. Options such
        as `reasoning`, `context_length`, `temperature`, `max_output_tokens` are sent to the server unchanged. With `recover`,
        the history is sent again if the server no longer has the conversation, which `reply.problems` reports.

        Source: LM Studio docs `2_rest/chat.md`.

        Raises:
            ConfigurationError: `model` is neither text nor None, or `integrations` is not a list.
        """
        from lmdeck._client.conversation import Conversation, ConversationSpec

        spec = ConversationSpec(
            model=checked_model(model),
            integrations=tuple(checked_list(integrations, "integrations", INTEGRATIONS)),
            system_prompt=system_prompt,
            store=store,
            recover=recover,
            options=options,
        )
        return Conversation(self._session, self._get_transport, spec, previous_response_id)

    def embed(
        self,
        text: str | Sequence[str],
        *,
        model: str | None = None,
        batch_size: int = EMBED_BATCH,
        **options: Any,  # sent to the server unchanged
    ) -> Embeddings:
        """Return a vector for each text, in order.

        Without `model`, a loaded embedding model is used, or the first in the list. Long lists are sent in batches of
        `batch_size`, one after the other. Options such as `ttl` are sent to the server unchanged (LM Studio docs
        `3_openai-compat/embeddings.md`).

        Raises:
            ConfigurationError: There is no text, or an item is not text.
            InvalidRequestError: The model does not support embeddings.
            LMStudioError: The server cannot be reached or refuses.
        """
        from lmdeck._plans.text import embed

        return drive(embed(self._session, text, model, batch_size, options), self._get_transport())

    def decide(
        self,
        input: object,  # OpenAI's name for it
        questions: Mapping[str, QuestionLike],
        *,
        model: str | None = None,
        images: Sequence[ImageSource] = (),
        emulate: bool = False,
    ) -> Decisions:
        """Answer typed questions about a text, or data, with a decision model.

        `questions` has a type and instructions for each name: `{"angry": (bool, "Is the customer angry?")}`; the type is
        `bool`, an `Enum` class, a `Literal`, a `range` of whole numbers, or a dict of texts to descriptions. The endpoint is
        `/v1/decisions` or, if the server does not have it, `/v1/systemone`. Without `model`, a loaded decision model is used,
        or the first in the list. With `emulate`, a chat model answers if there is no decision model, without probabilities,
        which `problems` reports.

        Source: LM Studio docs `3_openai-compat/decisions.md`.

        Raises:
            ConfigurationError: The input is empty, or a question has no list of possible answers.
            NoModelLoadedError: The server does not list a decision model.
            EndpointNotFoundError: The server has neither endpoint.
            LMStudioError: The server cannot be reached or refuses, or an answer has another type than its question.
        """
        from lmdeck._plans.decisions import decide

        return drive(decide(self._session, input, questions, model, images, emulate=emulate), self._get_transport())

    def batch(
        self,
        source: str | PathLike[str],
        *,
        out: str | PathLike[str],
        **arguments: Unpack[BatchArguments],
    ) -> BatchJob:
        """Return a batch: many requests from a file, each answered once, even after a kill.

        `source` has lines of OpenAI's Batch API, or is JSONL, CSV or Parquet with a `prompt` or `messages` column. A line for
        each row is written to `out`, a `.jsonl` or `.parquet` file. Keywords: `model`, `endpoint`, `template`, `system`,
        `options` (a dict of `temperature`, `max_tokens` and so on), `schema`, `dedupe`, `hosts` (addresses instead of this
        client's server), `max_concurrency`, `attempts`, `patience`, `ledger`.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        from lmdeck.batch.arguments import make_job  # imported late: few programs run batches

        return make_job(self._session, source, out, arguments)

    @overload
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[False] = False,
        **options: Any,  # sent to the server unchanged
    ) -> Completion: ...  # fmt: skip
    @overload
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[True],
        **options: Any,  # sent to the server unchanged
    ) -> ChatStream: ...  # fmt: skip
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: bool = False,
        **options: Any,  # sent to the server unchanged
    ) -> ChatStream | Completion:  # fmt: skip
        """Complete a text without a prompt template, for base models.

        Options such as `max_tokens`, `temperature`, `stop`, `seed`, `logprobs` are sent to the server unchanged. With `suffix`,
        the model writes the text between `prompt` and `suffix`, with the tokens of its family, which must be part of its name.
        With `stream=True`, return a stream of chunks, whose `content` is the new text as the model wrote it.

        Source: LM Studio docs `3_openai-compat/completions.mdx`.

        Raises:
            ConfigurationError: With `suffix`: the model's family is unknown.
            EmptyReplyError: The server did not return any text, although tokens were requested.
            LMStudioError: The server cannot be reached or refuses; a stream raises it when it is read.
        """
        from lmdeck._plans.text import begin_completion, complete

        if stream:
            begin = partial(begin_completion, self._session, prompt, suffix, model, options)
            return ChatStream(self._get_transport(), begin)
        return drive(complete(self._session, prompt, suffix, model, options), self._get_transport())

    def fetch_image(
        self,
        url: str,
        *,
        allow_private: bool = False,
        max_bytes: int = MAX_IMAGE_BYTES,
        total_timeout: float = FETCH_SECONDS,
    ) -> bytes:
        """Download an image, and return its bytes for `chat.user(text, images=[…])`.

        LM Studio itself does not download images. Unless `allow_private` is set, only http:// and https:// addresses on the
        public internet are requested, including after redirects. No token, cookie or proxy of this client is used.
        `total_timeout` (seconds) applies to each request.

        Raises:
            ConfigurationError: The URL is invalid.
            InvalidRequestError: It leads into a private network, or to something other than an image of at most `max_bytes`.
            TransportError: The server of the URL did not answer, or not in time.
        """
        from lmdeck._plans.images import fetch_image
        from lmdeck._requests.image_urls import AddressGuard
        from lmdeck._transport.urllib3 import Urllib3Transport

        guard = AddressGuard(allow_private=allow_private)
        with closing(Urllib3Transport(Settings(), guard)) as transport:
            return drive(fetch_image(url, guard, max_bytes, total_timeout), transport)

    def count_tokens(self, chat: Chat | AsyncChat) -> TokenCount:
        """Count the tokens of a chat's prompt, including template and tools.

        llama.cpp and servers with `/v1/messages/count_tokens` count exactly. For other servers, the count is an estimate, whose
        `error` decreases with each answer of the model, because `usage` has the server's count.

        Raises:
            LMStudioError: The server cannot be reached.
        """
        from lmdeck._plans.token_counts import count_tokens

        return drive(count_tokens(self._session, spec_of(chat)), self._get_transport())

    def health(self) -> Health:
        """Return whether and how the server answers; never raise for a server that does not."""
        from lmdeck._plans.health import check_health

        return drive(check_health(self._session), self._get_transport())

    def close(self) -> None:
        """Close every connection; the client can be used again, with new ones."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _get_transport(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from lmdeck._transport.urllib3 import (
                    Urllib3Transport,  # imported late: importing it takes longer than lmdeck
                )

                self._transport = Urllib3Transport(self.settings)
            return self._transport


class AsyncLMStudio(ClientBase):
    """A client of LM Studio's local server for asyncio; safe to share between tasks.

    Settings come from the keywords (see `lmdeck.config.Settings` for all of them), the environment (`LMDECK_HOST`, …, and
    `LM_API_TOKEN`), `lmdeck.toml` or `[tool.lmdeck]` in `pyproject.toml`, or their defaults. Nothing is opened until the
    first request. Use it as an async context manager, or await `aclose`.
    """

    def __init__(
        self,
        *,
        handlers: Iterable[HandlerFactory] = (),
        retry: RetryPolicy | None = None,
        tools: ToolRegistry | None = None,
        headers: Mapping[str, str] | None = None,
        cache: str | Cache | None = None,
        **settings: Unpack[ClientSettings],
    ) -> None:
        from lmdeck._client.background_tasks import BackgroundTasks

        self._session = Session(
            Settings.resolve(settings), handlers=handlers, retry=retry, tools=tools, headers=headers, cache=cache
        )
        self._session.bus.run_later = BackgroundTasks("An event handler raised.")
        self._transport: AsyncTransport | None = None

    @property
    def models(self) -> AsyncModels:
        """Async version of `LMStudio.models`."""
        from lmdeck._client.models import AsyncModels

        return AsyncModels(self._session, self._get_transport)

    def chat(self, model: str | None = None, *, strict: bool = False) -> AsyncChat:
        """Async version of `LMStudio.chat`."""
        return AsyncChat(self._session, self._get_transport, ChatSpec(model=checked_model(model), strict=strict))

    def adopt(self, chat: Chat | AsyncChat) -> AsyncChat:
        """Async version of `LMStudio.adopt`."""
        return AsyncChat(self._session, self._get_transport, spec_of(chat))

    @property
    def responses(self) -> AsyncResponses:
        """Async version of `LMStudio.responses`."""
        from lmdeck._client.endpoints import AsyncResponses

        return AsyncResponses(self._session, self._get_transport)

    @property
    def messages(self) -> AsyncMessages:
        """Async version of `LMStudio.messages`."""
        from lmdeck._client.endpoints import AsyncMessages

        return AsyncMessages(self._session, self._get_transport)

    def conversation(
        self,
        model: str | None = None,
        *,
        integrations: Sequence[str | Mapping[str, Any]] = (),
        system_prompt: str | None = None,
        store: bool = True,
        recover: bool = False,
        previous_response_id: str | None = None,
        **options: Any,  # sent to the server unchanged
    ) -> AsyncConversation:
        """Async version of `LMStudio.conversation`."""
        from lmdeck._client.conversation import AsyncConversation, ConversationSpec

        spec = ConversationSpec(
            model=checked_model(model),
            integrations=tuple(checked_list(integrations, "integrations", INTEGRATIONS)),
            system_prompt=system_prompt,
            store=store,
            recover=recover,
            options=options,
        )
        return AsyncConversation(self._session, self._get_transport, spec, previous_response_id)

    async def embed(
        self,
        text: str | Sequence[str],
        *,
        model: str | None = None,
        batch_size: int = EMBED_BATCH,
        **options: Any,  # sent to the server unchanged
    ) -> Embeddings:
        """Async version of `LMStudio.embed`."""
        from lmdeck._plans.text import embed

        return await drive_async(embed(self._session, text, model, batch_size, options), self._get_transport())

    async def decide(
        self,
        input: object,  # OpenAI's name for it
        questions: Mapping[str, QuestionLike],
        *,
        model: str | None = None,
        images: Sequence[ImageSource] = (),
        emulate: bool = False,
    ) -> Decisions:
        """Async version of `LMStudio.decide`."""
        from lmdeck._plans.decisions import decide

        return await drive_async(
            decide(self._session, input, questions, model, images, emulate=emulate), self._get_transport()
        )

    def batch(
        self,
        source: str | PathLike[str],
        *,
        out: str | PathLike[str],
        **arguments: Unpack[BatchArguments],
    ) -> AsyncBatchJob:
        """Async version of `LMStudio.batch`."""
        from lmdeck.batch.arguments import make_async_job  # imported late: few programs run batches

        return make_async_job(self._session, source, out, arguments)

    @overload
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[False] = False,
        **options: Any,  # sent to the server unchanged
    ) -> Awaitable[Completion]: ...  # fmt: skip
    @overload
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[True],
        **options: Any,  # sent to the server unchanged
    ) -> AsyncChatStream: ...  # fmt: skip
    def complete(
        self, prompt: str, *, model: str | None = None, suffix: str | None = None, stream: bool = False,
        **options: Any,  # sent to the server unchanged
    ) -> AsyncChatStream | Awaitable[Completion]:  # fmt: skip
        """Async version of `LMStudio.complete`."""
        from lmdeck._plans.text import begin_completion, complete

        if stream:
            begin = partial(begin_completion, self._session, prompt, suffix, model, options)
            return AsyncChatStream(self._get_transport(), begin)
        return drive_async(complete(self._session, prompt, suffix, model, options), self._get_transport())

    async def fetch_image(
        self,
        url: str,
        *,
        allow_private: bool = False,
        max_bytes: int = MAX_IMAGE_BYTES,
        total_timeout: float = FETCH_SECONDS,
    ) -> bytes:
        """Async version of `LMStudio.fetch_image`."""
        from lmdeck._plans.images import fetch_image
        from lmdeck._requests.image_urls import AddressGuard
        from lmdeck._transport.aiohttp import AiohttpTransport

        guard = AddressGuard(allow_private=allow_private)
        async with aclosing(AiohttpTransport(Settings(), guard)) as transport:
            return await drive_async(fetch_image(url, guard, max_bytes, total_timeout), transport)

    async def count_tokens(self, chat: Chat | AsyncChat) -> TokenCount:
        """Async version of `LMStudio.count_tokens`."""
        from lmdeck._plans.token_counts import count_tokens

        return await drive_async(count_tokens(self._session, spec_of(chat)), self._get_transport())

    async def health(self) -> Health:
        """Async version of `LMStudio.health`."""
        from lmdeck._plans.health import check_health

        return await drive_async(check_health(self._session), self._get_transport())

    async def aclose(self) -> None:
        """Async version of `LMStudio.close`."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()
        self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _get_transport(self) -> AsyncTransport:
        if self._transport is None:
            from lmdeck._transport.aiohttp import (
                AiohttpTransport,  # imported late: importing it takes longer than lmdeck
            )

            self._transport = AiohttpTransport(self.settings)
        return self._transport
