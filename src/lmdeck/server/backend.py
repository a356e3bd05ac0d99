"""The protocol of a back end: how it answers requests and manages its models.

The server implements HTTP, LM Studio's validation and its wire formats; a back end produces the answers. They exchange typed
jobs and events, so a model in this process, a test script and a remote server all use the same encoders. A back end that only
turns a prompt into text implements `lmdeck.server.text_model.TextModel` instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck.server.jobs import (
        ChatJob,
        CompletionJob,
        Decided,
        DecisionJob,
        DownloadState,
        Embedded,
        EmbeddingJob,
        EngineRuntime,
        Loaded,
        LoadJob,
        ModelDescription,
    )


class BackendError(Exception):
    """A back end cannot answer.

    If a method of `Backend` raises it, the response has the HTTP status `status` and the body `body`; if `body` is None, the
    message in the error format of the endpoint. Raised while events are read, it becomes the error event of the stream.
    `type` is an error type of LM Studio's native API ("invalid_request", "model_not_found", "not_implemented",
    "internal_error", …).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        body: object = None,
        type: str | None = None,  # the field's name
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.body = body
        self.type = type or ("invalid_request" if status < 500 else "internal_error")
        self.code = code


class Backend(Protocol):
    """The operations that the server needs.

    Closing the generator that `chat` or `complete` returned (`aclose`, or cancelling the task that awaits it) stops the
    generation, even while the request is still queued.
    """

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of the engine."""
        ...

    def models(self) -> Sequence[ModelDescription]:
        """Return the available models; the first one answers requests that do not name a model."""
        ...

    def chat(self, job: ChatJob) -> AsyncGenerator[BackendEvent, None]:
        """Answer a chat.

        Raises:
            BackendError: Raised by the call if the request is refused; raised while iterating if the generation fails.
        """
        ...

    def complete(self, job: CompletionJob) -> AsyncGenerator[BackendEvent, None]:
        """Continue a prompt, as text events followed by `Finished`.

        Raises:
            BackendError: As for `chat`.
        """
        ...

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return one vector for each text.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        ...

    async def decide(self, job: DecisionJob) -> Decided:
        """Answer typed questions.

        Raises:
            BackendError: The request is refused, or it failed.
        """
        ...

    async def load(self, job: LoadJob) -> Loaded:
        """Load an instance of a model; if one is already loaded, load another.

        Raises:
            BackendError: The model cannot be loaded.
        """
        ...

    async def unload(self, instance_id: str) -> None:
        """Unload an instance.

        Raises:
            BackendError: There is no such instance.
        """
        ...

    async def download(self, model: str, quantization: str | None = None) -> DownloadState:
        """Start downloading a model, or return the progress of its download.

        Raises:
            BackendError: There is no such model.
        """
        ...

    async def download_state(self, job_id: str) -> DownloadState:
        """Return the progress of a download.

        Raises:
            BackendError: There is no such job.
        """
        ...
