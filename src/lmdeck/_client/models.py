"""The models of a server: what is there, what is loaded, and how that is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from lmdeck._client.plans.model_lists import find_model, list_models
from lmdeck._client.plans.models import download, download_status, ensure_loaded, load, unload, wait_for_download
from lmdeck._client.session import Session
from lmdeck._pipeline.run_plan import drive, drive_async
from lmdeck._transport import AsyncTransport, Transport
from lmdeck.events import ModelLoadProgress
from lmdeck.model_info import DownloadJob, LoadedModel, ModelInfo

ModelList: TypeAlias = list[ModelInfo]  # in the classes below, `list` is their method


class Models:
    """The models, for the sync client."""

    def __init__(self, session: Session, route: Callable[[], Transport]) -> None:
        self._session = session
        self._route = route

    def list(self) -> list[ModelInfo]:
        """List every model on the server, over `/api/v1/models`, or `/api/v0/models`, or `/v1/models`.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(list_models(self._session), self._route())

    def loaded(self) -> ModelList:
        """List the models that are in memory.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return [model for model in self.list() if model.loaded]

    def get(self, key: str) -> ModelInfo:
        """Return one model by its key or by the id of a loaded instance.

        Raises:
            ModelNotFoundError: The server has none of that name; `available` lists the ones it has.
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(find_model(self._session, key), self._route())

    def load(self, key: str, *, force: bool = False, **options: Any) -> LoadedModel:  # LM Studio's own
        """Load a model; an instance that fits the options already is given back instead of loading a second one.

        Options are LM Studio's (docs `2_rest/load.md`): `context_length`, `eval_batch_size`, `flash_attention`,
        `num_experts`, `offload_kv_cache_to_gpu`; others go to the server as they are. `force` loads another instance.

        Raises:
            ModelLoadError: The server refused, or its memory does not suffice.
            ModelNotFoundError: The server has no such model.
            EndpointNotFoundError: LM Studio is older than 0.4.0, or this is another server.
        """
        return drive(load(self._session, key, options, force=force), self._route())

    def ensure_loaded(
        self,
        key: str,
        *,
        on_progress: Callable[[ModelLoadProgress], object] | None = None,
        **options: Any,  # LM Studio's own
    ) -> LoadedModel:
        """Load a model unless a fitting instance is loaded; `on_progress` gets the progress from 0 to 1.

        Raises:
            ModelLoadError: The server refused, or its memory does not suffice.
            ModelNotFoundError: The server has no such model.
        """
        return drive(ensure_loaded(self._session, key, options, on_progress), self._route())

    def unload(self, instance_id: str) -> str:
        """Unload an instance, and return its id (LM Studio docs `2_rest/unload.md`).

        Raises:
            ModelNotFoundError: No such instance is loaded.
            EndpointNotFoundError: LM Studio is older than 0.4.0, or this is another server.
        """
        return drive(unload(self._session, instance_id), self._route())

    def download(
        self,
        model: str,
        quantization: str | None = None,
        on_progress: Callable[[DownloadJob], object] | None = None,
        *,
        wait: bool = True,
    ) -> DownloadJob:
        """Download a model to the server, and wait for it; a model that is there gives `already_downloaded` at once.

        `model` is a name of LM Studio's catalog or a Hugging Face link, `quantization` for the latter, such as `"Q4_K_M"`
        (LM Studio docs `2_rest/download.md`). `on_progress` sees every status, pauses too, which are waited out.
        With `wait=False` the job that has begun is given.

        Raises:
            APIError: The server refused, or the download failed.
        """
        return drive(download(self._session, model, quantization, on_progress, wait=wait), self._route())

    def download_status(self, job_id: str) -> DownloadJob:
        """Ask how far a download is (LM Studio docs `2_rest/download-status.md`).

        Raises:
            APIError: The server knows no such job.
        """
        return drive(download_status(self._session, job_id), self._route())

    def wait_for_download(self, job_id: str, on_progress: Callable[[DownloadJob], object] | None = None) -> DownloadJob:
        """Wait for a download that was begun before, by this program or another.

        Raises:
            APIError: The server knows no such job, or the download failed.
        """
        return drive(wait_for_download(self._session, job_id, on_progress), self._route())


class AsyncModels:
    """The models, for the async client."""

    def __init__(self, session: Session, route: Callable[[], AsyncTransport]) -> None:
        self._session = session
        self._route = route

    async def list(self) -> list[ModelInfo]:
        """Async version of `Models.list`."""
        return await drive_async(list_models(self._session), self._route())

    async def loaded(self) -> ModelList:
        """Async version of `Models.loaded`."""
        return [model for model in await self.list() if model.loaded]

    async def get(self, key: str) -> ModelInfo:
        """Async version of `Models.get`."""
        return await drive_async(find_model(self._session, key), self._route())

    async def load(self, key: str, *, force: bool = False, **options: Any) -> LoadedModel:  # LM Studio's own
        """Async version of `Models.load`."""
        return await drive_async(load(self._session, key, options, force=force), self._route())

    async def ensure_loaded(
        self,
        key: str,
        *,
        on_progress: Callable[[ModelLoadProgress], object] | None = None,
        **options: Any,  # LM Studio's own
    ) -> LoadedModel:
        """Async version of `Models.ensure_loaded`."""
        return await drive_async(ensure_loaded(self._session, key, options, on_progress), self._route())

    async def unload(self, instance_id: str) -> str:
        """Async version of `Models.unload`."""
        return await drive_async(unload(self._session, instance_id), self._route())

    async def download(
        self,
        model: str,
        quantization: str | None = None,
        on_progress: Callable[[DownloadJob], object] | None = None,
        *,
        wait: bool = True,
    ) -> DownloadJob:
        """Async version of `Models.download`."""
        return await drive_async(download(self._session, model, quantization, on_progress, wait=wait), self._route())

    async def download_status(self, job_id: str) -> DownloadJob:
        """Async version of `Models.download_status`."""
        return await drive_async(download_status(self._session, job_id), self._route())

    async def wait_for_download(
        self, job_id: str, on_progress: Callable[[DownloadJob], object] | None = None
    ) -> DownloadJob:
        """Async version of `Models.wait_for_download`."""
        return await drive_async(wait_for_download(self._session, job_id, on_progress), self._route())
