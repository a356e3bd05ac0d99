"""The one protocol that stands behind the wire: how a back end answers and manages its models.

The server knows HTTP, LM Studio's validation and its chunks; a back end knows how an answer comes to be. Between them travel
typed jobs and events, so that a real model in process, a script of a test, or another server behind a gateway all leave through
the same encoder. A back end that only turns a prompt into text implements `lmdeck.server.text_model.TextModel` instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lmdeck.server.events import Event
    from lmdeck.server.jobs import (
        ChatJob,
        CompletionJob,
        Decided,
        DecisionJob,
        DownloadState,
        Embedded,
        EmbeddingJob,
        Loaded,
        LoadJob,
        ModelDescription,
        Runtime,
    )

__all__ = ["Backend", "BackendError"]


class BackendError(Exception):
    """A back end cannot answer: `status` is the HTTP status where a stream has not begun.

    `body` is what is sent then; None writes the message in the form of the endpoint that was asked. `type` is one of the words
    of LM Studio's native API ("invalid_request", "model_not_found", "not_implemented", "internal_error", …). Raised by the
    call of a method of `Backend` it becomes that answer; raised while events are read, the error event of the stream.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        body: object = None,
        type: str | None = None,  # noqa: A002  # the field's name
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.body = body
        self.type = type or ("invalid_request" if status < 500 else "internal_error")
        self.code = code


class Backend(Protocol):
    """What the server needs from whatever answers behind it.

    Closing the generator that `chat` or `complete` gave (`aclose`, or cancelling the task that waits on it) stops the
    generation, also while it still waits for its turn.
    """

    @property
    def runtime(self) -> Runtime:
        """The engine's name and version."""
        ...

    def models(self) -> Sequence[ModelDescription]:
        """List the models on hand, the one that answers requests without a model name first."""
        ...

    def chat(self, job: ChatJob) -> AsyncGenerator[Event, None]:
        """Answer a chat.

        Raises:
            BackendError: By the call itself: refused. While iterating: failed.
        """
        ...

    def complete(self, job: CompletionJob) -> AsyncGenerator[Event, None]:
        """Continue a prompt: text events, then `Finished`.

        Raises:
            BackendError: As for `chat`.
        """
        ...

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Turn texts into vectors.

        Raises:
            BackendError: Refused or failed.
        """
        ...

    async def decide(self, job: DecisionJob) -> Decided:
        """Answer typed questions.

        Raises:
            BackendError: Refused or failed.
        """
        ...

    async def load(self, job: LoadJob) -> Loaded:
        """Load a model, and one more instance where one is loaded already.

        Raises:
            BackendError: It cannot be loaded.
        """
        ...

    async def unload(self, instance_id: str) -> None:
        """Take an instance out of memory.

        Raises:
            BackendError: There is none of that name.
        """
        ...

    async def download(self, model: str, quantization: str | None = None) -> DownloadState:
        """Begin to download a model, or tell how far its download is.

        Raises:
            BackendError: There is no such model.
        """
        ...

    async def download_state(self, job_id: str) -> DownloadState:
        """Tell how far a download is.

        Raises:
            BackendError: There is no such job.
        """
        ...
