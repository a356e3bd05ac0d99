"""The module-level functions such as `lmdeck.chat()`, on one default client.

The client is created on first use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Unpack, overload

from lmdeck._client.chat import Chat
from lmdeck._client.clients import EMBED_BATCH, LMStudio
from lmdeck._client.conversation import Conversation
from lmdeck._client.models import Models
from lmdeck._client.stream import ChatStream
from lmdeck._forking import on_fork
from lmdeck._limits import FETCH_SECONDS, MAX_IMAGE_BYTES
from lmdeck.config import ClientSettings
from lmdeck.decisions import Decisions, QuestionLike
from lmdeck.images import ImageSource
from lmdeck.model_info import Health
from lmdeck.outputs import Completion, Embeddings
from lmdeck.tools.tool import Tool


class _DefaultClient:
    """The default client and its keywords."""

    def __init__(self) -> None:
        self._client: LMStudio | None = None
        self._settings: ClientSettings = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock: a thread of the parent process may have held it."""
        self._lock = threading.Lock()

    def client(self) -> LMStudio:
        """Return the client, which is created on first use."""
        with self._lock:
            if self._client is None:
                self._client = LMStudio(**self._settings)
            return self._client

    def configure(self, settings: ClientSettings) -> None:
        """Close the client; the next use creates one with these settings."""
        with self._lock:
            client, self._client, self._settings = self._client, None, settings
        if client is not None:
            client.close()


_default = _DefaultClient()
on_fork(_default, _DefaultClient.after_fork)


def default_client() -> LMStudio:
    """Return the default client; a forked process uses it with separate connections."""
    return _default.client()


def configure(**settings: Unpack[ClientSettings]) -> None:
    """Set the keywords of the default client; the next use creates a new one."""
    _default.configure(settings)


def reset() -> None:
    """Close the default client and discard its keywords; the next use creates a new one."""
    configure()


def chat(model: str | None = None, *, strict: bool = False) -> Chat:
    """Return a chat with the default client."""
    return default_client().chat(model, strict=strict)


def embed(
    text: str | Sequence[str], *, model: str | None = None, batch_size: int = EMBED_BATCH,
    **options: Any,  # sent to the server unchanged
) -> Embeddings:  # fmt: skip
    """Return a vector for each text, with the default client; see `LMStudio.embed`."""
    return default_client().embed(text, model=model, batch_size=batch_size, **options)


@overload
def complete(
    prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[False] = False,
    **options: Any,  # sent to the server unchanged
) -> Completion: ...  # fmt: skip
@overload
def complete(
    prompt: str, *, model: str | None = None, suffix: str | None = None, stream: Literal[True],
    **options: Any,  # sent to the server unchanged
) -> ChatStream: ...  # fmt: skip
def complete(
    prompt: str, *, model: str | None = None, suffix: str | None = None, stream: bool = False,
    **options: Any,  # sent to the server unchanged
) -> ChatStream | Completion:  # fmt: skip
    """Complete a text, with the default client; see `LMStudio.complete`."""
    ask: Callable[..., ChatStream | Completion] = default_client().complete
    return ask(prompt, model=model, suffix=suffix, stream=stream, **options)


def decide(
    input: object, questions: Mapping[str, QuestionLike], *,  # OpenAI's name for it
    model: str | None = None, images: Sequence[ImageSource] = (), emulate: bool = False,
) -> Decisions:  # fmt: skip
    """Answer typed questions, with the default client; see `LMStudio.decide`."""
    return default_client().decide(input, questions, model=model, images=images, emulate=emulate)


def conversation(
    model: str | None = None, *, integrations: Sequence[str | Mapping[str, Any]] = (), system_prompt: str | None = None,
    store: bool = True, recover: bool = False, previous_response_id: str | None = None,
    **options: Any,  # sent to the server unchanged
) -> Conversation:  # fmt: skip
    """Return a conversation stored by the server, with the default client.

    See `LMStudio.conversation`.
    """
    return default_client().conversation(
        model, integrations=integrations, system_prompt=system_prompt, store=store, recover=recover,
        previous_response_id=previous_response_id, **options,
    )  # fmt: skip


def register_tool(
    name: str, *, handler: Callable[..., Any], description: str = "", parameters: Mapping[str, Any] | None = None,
    required: Sequence[str] | None = None, timeout: float | None = None, repeatable: bool = False,
) -> Tool[..., Any]:  # fmt: skip
    """Register a tool with the default client; see `LMStudio.register_tool`."""
    return default_client().register_tool(
        name, handler=handler, description=description, parameters=parameters, required=required, timeout=timeout,
        repeatable=repeatable,
    )  # fmt: skip


def fetch_image(
    url: str,
    *,
    allow_private: bool = False,
    max_bytes: int = MAX_IMAGE_BYTES,
    total_timeout: float = FETCH_SECONDS,
) -> bytes:
    """Fetch an image from the web and return its bytes; see `LMStudio.fetch_image`."""
    return default_client().fetch_image(
        url, allow_private=allow_private, max_bytes=max_bytes, total_timeout=total_timeout
    )


def health() -> Health:
    """Ask whether the default client's server answers."""
    return default_client().health()


def models() -> Models:
    """Return the models of the default client's server."""
    return default_client().models
