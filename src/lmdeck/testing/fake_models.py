"""The models of a fake: lists, loading, unloading, downloads, and methods to script them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, field

from lmdeck._encoders.backend_events import LoadProgress
from lmdeck.server.backend import BackendError
from lmdeck.server.jobs import DownloadState, Instance, Loaded, ModelDescription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lmdeck.server.jobs import LoadJob

DEFAULT_MODEL = "qwen2.5-7b-instruct"
DEFAULT_EMBEDDING_MODEL = "text-embedding-nomic-embed-text-v1.5"
DEFAULT_SIZE_BYTES = 4_683_074_048
LOAD_STEPS = 4
NO_CHAT = ("embeddings", "decision")
_NO_MODELS = "No models loaded. Please load a model in the developer page or use the `lms load` command."


class FakeModel(Struct, kw_only=True):
    """One model of a fake.

    `load_seconds` is the load time, `parallel` the number of simultaneous answers, `loads` how often it was loaded.
    """

    key: str
    type: Literal["llm", "vlm", "embeddings", "decision"] = "llm"
    loaded: bool = True
    load_seconds: float = 0.0
    max_context_length: int = 32768
    context_length: int = 4096
    parallel: int = 4
    architecture: str = "qwen2"
    size_bytes: int = DEFAULT_SIZE_BYTES
    tool_use: bool = True
    refuses_to_load: str | None = None
    instances: list[Instance] = field(default_factory=list)
    loads: int = 0

    def describe(self) -> ModelDescription:
        """Return the description that the listings show."""
        return ModelDescription(
            key=self.key,
            display_name=self.key.replace("-", " ").title(),
            type=self.type,
            publisher="fake",
            architecture=self.architecture,
            quantization="Q4_K_M",
            bits_per_weight=4.0,
            size_bytes=self.size_bytes,
            parameters="7B",
            max_context_length=self.max_context_length,
            instances=tuple(self.instances),
            trained_for_tool_use=self.tool_use,
            decides=self.type == "decision",
        )

    def add_instance(self, job: LoadJob | None = None) -> Instance:
        """Add a loaded instance and return it."""
        number = len(self.instances) + 1
        config = {"parallel": self.parallel} if self.type != "embeddings" else {}
        instance = Instance(
            id=self.key if number == 1 else f"{self.key}:{number}",
            context_length=(job.context_length if job else None) or self.context_length,
            config={**config, **(job.config if job else {})},
        )
        self.instances.append(instance)
        return instance


class FakeModelStore:
    """All models of a fake.

    `jit` is whether a request loads a model that is not loaded, `evicts` whether that unloads the others.
    """

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.jit = True
        self.evicts = False
        self.downloads: dict[str, list[DownloadState]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._ttls: dict[str, int] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    def forget_loop(self) -> None:
        """Drop what belongs to the event loop of a server that has ended."""
        self._slots.clear()
        self._idle.clear()
        self._loading.clear()

    def add(self, model: FakeModel) -> None:
        """Add a model, loaded if its `loaded` is set."""
        self.models[model.key] = model
        if model.loaded and not model.instances:
            model.add_instance()

    def describe(self) -> list[ModelDescription]:
        """Return the models, loaded ones first.

        The first one answers requests that do not name a model.
        """
        models = sorted(self.models.values(), key=lambda model: (model.type in NO_CHAT, not model.instances))
        return [msgspec.structs.replace(model.describe(), on_demand=self.jit) for model in models]

    def slot(self, key: str) -> asyncio.Semaphore:
        """Return the semaphore that limits the simultaneous answers of a model."""
        return self._slots.setdefault(key, asyncio.Semaphore(max(1, self.models[key].parallel)))

    async def ensure_loaded(self, key: str, ttl: int | None = None) -> AsyncIterator[LoadProgress]:
        """Load a model if needed, yielding the progress, and restart its idle timer.

        Raises:
            BackendError: Loading on demand is off, or loading fails.
        """
        model = self.models[key]
        if not model.instances:
            if not self.jit:
                raise BackendError(_NO_MODELS, status=404, code="model_not_loaded")
            async with self._loading.setdefault(key, asyncio.Lock()):
                if not model.instances:
                    for step in range(LOAD_STEPS + 1):
                        yield LoadProgress(step / LOAD_STEPS)
                        if step < LOAD_STEPS:
                            await self._load_step(model)
                    self._record_load(model, None)
                    if self.evicts:
                        self._evict_others(model)
        if ttl is not None or key in self._idle:
            self._unload_when_idle(key, ttl)

    def _evict_others(self, model: FakeModel) -> None:
        for other in self.models.values():
            if other is not model:
                other.instances.clear()

    async def load(self, job: LoadJob) -> Loaded:
        """Load another instance of a model.

        Raises:
            BackendError: Loading fails.
        """
        model = self.models[job.model]
        for _ in range(LOAD_STEPS):
            await self._load_step(model)
        instance = self._record_load(model, job)
        kind: Literal["llm", "embedding"] = "embedding" if model.type == "embeddings" else "llm"
        return Loaded(instance=instance, seconds=model.load_seconds, type=kind)

    async def _load_step(self, model: FakeModel) -> None:
        if model.refuses_to_load is not None:
            message = f'Failed to load model "{model.key}". Error: {model.refuses_to_load}'
            raise BackendError(message, status=404, code="model_load_failed")
        await asyncio.sleep(model.load_seconds / LOAD_STEPS)

    def _record_load(self, model: FakeModel, job: LoadJob | None) -> Instance:
        model.loads += 1
        return model.add_instance(job)

    def unload(self, instance_id: str) -> None:
        """Unload an instance.

        Raises:
            BackendError: There is no such instance.
        """
        for model in self.models.values():
            for instance in model.instances:
                if instance.id == instance_id:
                    model.instances.remove(instance)
                    return
        message = f'No loaded model found with instance ID "{instance_id}".'
        raise BackendError(message, status=404, type="model_not_found")

    def _unload_when_idle(self, key: str, ttl: int | None) -> None:
        if key in self._idle:
            self._idle[key].cancel()
        seconds = self._ttls[key] = self._ttls.get(key, 0) if ttl is None else ttl
        self._idle[key] = asyncio.get_running_loop().call_later(seconds, self.models[key].instances.clear)

    # --- downloads ---

    def download(self, model: str) -> DownloadState:
        """Start a download, or return the state of a started one.

        Raises:
            BackendError: No download of that model was scripted.
        """
        if model in self.models:
            return DownloadState(status="already_downloaded")
        if states := self.downloads.get(f"job_{_job_suffix(model)}"):
            return states[0]
        raise BackendError(f"Model {model!r} not found.", status=404, type="model_not_found")

    def download_state(self, job_id: str) -> DownloadState:
        """Return the next state of a download; the last one is repeated.

        Raises:
            BackendError: There is no such job.
        """
        states = self.downloads.get(job_id)
        if not states:
            raise BackendError(f"Download job {job_id} not found.", status=404, type="job_not_found")
        return states.pop(0) if len(states) > 1 else states[0]

    def plan_download(self, model: str, states: list[DownloadState]) -> str:
        """Script the states of a download, and return its job id."""
        job_id = f"job_{_job_suffix(model)}"
        self.downloads[job_id] = [msgspec.structs.replace(state, job_id=job_id) for state in states]
        return job_id


def _job_suffix(model: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in model)


class ModelScripting:
    """The methods of a fake that script its models."""

    _models: FakeModelStore

    def add_model(
        self,
        key: str,
        *,
        type: Literal["llm", "vlm", "embeddings", "decision"] = "llm",  # LM Studio's word
        loaded: bool = True,
        load_seconds: float = 0.0,
        context_length: int = 4096,
        max_context_length: int = 32768,
        parallel: int = 4,
        size_bytes: int = DEFAULT_SIZE_BYTES,
        refuses_to_load: str | None = None,
    ) -> FakeModel:
        """Add a model; if it is not loaded, the first request loads it in `load_seconds`."""
        model = FakeModel(
            key=key,
            type=type,
            loaded=loaded,
            load_seconds=load_seconds,
            context_length=context_length,
            max_context_length=max_context_length,
            parallel=parallel,
            size_bytes=size_bytes,
            refuses_to_load=refuses_to_load,
        )
        self._models.add(model)
        return model

    def model(self, key: str = DEFAULT_MODEL) -> FakeModel:
        """Return a model, with its instances and how often it was loaded."""
        return self._models.models[key]

    def remove_model(self, key: str) -> None:
        """Remove a model from the lists."""
        self._models.models.pop(key)

    def evict(self, key: str = DEFAULT_MODEL) -> None:
        """Unload a model, as LM Studio does when it is idle."""
        self._models.models[key].instances.clear()

    def turn_on_auto_evict(self) -> None:
        """Unload every other model when a request loads one.

        LM Studio does so with models that it loaded on demand.
        """
        self._models.evicts = True

    def turn_off_jit(self) -> None:
        """Refuse requests for models that are not loaded instead of loading them."""
        self._models.jit = False

    def plan_download(
        self,
        model: str,
        *,
        total_bytes: int = 1000,
        steps: int = 3,
        ends: Literal["completed", "failed", "paused"] = "completed",
    ) -> str:
        """Script a download that progresses with every status request, and return its job id."""
        states = [
            DownloadState(
                status="downloading",
                total_size_bytes=total_bytes,
                downloaded_bytes=total_bytes * step // steps,
                bytes_per_second=float(total_bytes),
                started_at="2026-01-31T12:00:00.000Z",
            )
            for step in range(steps)
        ]
        done = total_bytes if ends == "completed" else total_bytes // 2
        states.append(
            DownloadState(
                status=ends,
                total_size_bytes=total_bytes,
                downloaded_bytes=done,
                started_at="2026-01-31T12:00:00.000Z",
                completed_at="2026-01-31T12:01:00.000Z" if ends == "completed" else None,
            )
        )
        return self._models.plan_download(model, states)
