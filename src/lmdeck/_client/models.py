"""`lm.models`: list, load, unload and download the models of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._plans.model_lists import find_model, list_models
from lmdeck._plans.models import download, download_status, ensure_loaded, load, unload, wait_for_download
from lmdeck._plans.session import Session
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.events import ModelLoadProgress
from lmdeck.model_info import DownloadJob, LoadedModel, ModelInfo

ModelList: TypeAlias = list[ModelInfo]  # in the classes below, `list` is their method


class Models:
    """The models of a server, for the sync client."""

    def __init__(self, session: Session, transport: Callable[[], Transport]) -> None:
        self._session = session
        self._transport = transport

    def list(self) -> list[ModelInfo]:
        """List every model on the server.

        The list is that of `/api/v1/models`, else `/api/v0/models`, else `/v1/models`.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(list_models(self._session), self._transport())

    def loaded(self) -> ModelList:
        """List the models that are in memory.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return [model for model in self.list() if model.loaded]

    def get(self, key: str) -> ModelInfo:
        """Return one model by its key or by the id of a loaded instance.

        Raises:
            ModelNotFoundError: The server has no such model; `available` lists its models.
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(find_model(self._session, key), self._transport())

    def load(self, key: str, *, force: bool = False, **options: Any) -> LoadedModel:  # LM Studio's own
        """Load a model, or return a loaded instance that already matches the options.

        Options are LM Studio's (docs `2_rest/load.md`): `context_length`, `eval_batch_size`, `flash_attention`,
        `num_experts`, `offload_kv_cache_to_gpu`; others are sent unchanged. `force` loads another instance.

        Raises:
            ModelLoadError: The server refused, or has too little memory.
            ModelNotFoundError: The server has no such model.
            EndpointNotFoundError: LM Studio is older than 0.4.0, or this is another server.
        """
        return drive(load(self._session, key, options, force=force), self._transport())

    def ensure_loaded(
        self,
        key: str,
        *,
        on_progress: Callable[[ModelLoadProgress], object] | None = None,
        **options: Any,  # LM Studio's own
    ) -> LoadedModel:
        """Load a model unless a matching instance is loaded.

        `on_progress` receives the progress from 0 to 1.

        Raises:
            ModelLoadError: The server refused, or has too little memory.
            ModelNotFoundError: The server has no such model.
        """
        return drive(ensure_loaded(self._session, key, options, on_progress), self._transport())

    def unload(self, instance_id: str) -> str:
        """Unload an instance, and return its id (LM Studio docs `2_rest/unload.md`).

        Raises:
            ModelNotFoundError: No such instance is loaded.
            EndpointNotFoundError: LM Studio is older than 0.4.0, or this is another server.
        """
        return drive(unload(self._session, instance_id), self._transport())

    def download(
        self,
        model: str,
        quantization: str | None = None,
        on_progress: Callable[[DownloadJob], object] | None = None,
        *,
        wait: bool = True,
    ) -> DownloadJob:
        """Download a model to the server, and wait for it; the status may be `already_downloaded`.

        `model` is a name from LM Studio's catalog or a Hugging Face link; `quantization`, such as `"Q4_K_M"`, applies to links
        (LM Studio docs `2_rest/download.md`). `on_progress` receives every status; a paused download is waited for.
        With `wait=False`, return the job at once.

        Raises:
            APIError: The server refused, or the download failed.
        """
        return drive(download(self._session, model, quantization, on_progress, wait=wait), self._transport())

    def download_status(self, job_id: str) -> DownloadJob:
        """Return the status of a download (LM Studio docs `2_rest/download-status.md`).

        Raises:
            APIError: The server does not know this job.
        """
        return drive(download_status(self._session, job_id), self._transport())

    def wait_for_download(self, job_id: str, on_progress: Callable[[DownloadJob], object] | None = None) -> DownloadJob:
        """Wait for a download that this program or another has started.

        Raises:
            APIError: The server does not know this job, or the download failed.
        """
        return drive(wait_for_download(self._session, job_id, on_progress), self._transport())


class AsyncModels:
    """The models of a server, for the async client."""

    def __init__(self, session: Session, transport: Callable[[], AsyncTransport]) -> None:
        self._session = session
        self._transport = transport

    async def list(self) -> list[ModelInfo]:
        """Async version of `Models.list`."""
        return await drive_async(list_models(self._session), self._transport())

    async def loaded(self) -> ModelList:
        """Async version of `Models.loaded`."""
        return [model for model in await self.list() if model.loaded]

    async def get(self, key: str) -> ModelInfo:
        """Async version of `Models.get`."""
        return await drive_async(find_model(self._session, key), self._transport())

    async def load(self, key: str, *, force: bool = False, **options: Any) -> LoadedModel:  # LM Studio's own
        """Async version of `Models.load`."""
        return await drive_async(load(self._session, key, options, force=force), self._transport())

    async def ensure_loaded(
        self,
        key: str,
        *,
        on_progress: Callable[[ModelLoadProgress], object] | None = None,
        **options: Any,  # LM Studio's own
    ) -> LoadedModel:
        """Async version of `Models.ensure_loaded`."""
        return await drive_async(ensure_loaded(self._session, key, options, on_progress), self._transport())

    async def unload(self, instance_id: str) -> str:
        """Async version of `Models.unload`."""
        return await drive_async(unload(self._session, instance_id), self._transport())

    async def download(
        self,
        model: str,
        quantization: str | None = None,
        on_progress: Callable[[DownloadJob], object] | None = None,
        *,
        wait: bool = True,
    ) -> DownloadJob:
        """Async version of `Models.download`."""
        return await drive_async(
            download(self._session, model, quantization, on_progress, wait=wait), self._transport()
        )

    async def download_status(self, job_id: str) -> DownloadJob:
        """Async version of `Models.download_status`."""
        return await drive_async(download_status(self._session, job_id), self._transport())

    async def wait_for_download(
        self, job_id: str, on_progress: Callable[[DownloadJob], object] | None = None
    ) -> DownloadJob:
        """Async version of `Models.wait_for_download`."""
        return await drive_async(wait_for_download(self._session, job_id, on_progress), self._transport())
