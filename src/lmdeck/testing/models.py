"""The fake's models: listed, loaded on demand as slowly as wanted, in parallel slots, unloaded when idle, crashed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, field

from lmdeck.server.backend import BackendError
from lmdeck.server.events import LoadProgress
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
    """One model on the shelf. `load_seconds` is how long loading takes, `parallel` how many answers it makes at once."""

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
        """Say what the listings show."""
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

    def instance(self, job: LoadJob | None = None) -> Instance:
        """Put one more instance into memory."""
        number = len(self.instances) + 1
        config = {"parallel": self.parallel} if self.type != "embeddings" else {}
        made = Instance(
            id=self.key if number == 1 else f"{self.key}:{number}",
            context_length=(job.context_length if job else None) or self.context_length,
            config={**config, **(job.config if job else {})},
        )
        self.instances.append(made)
        return made


class Shelf:
    """All models of a fake. `jit`: whether a request loads a model that is not loaded."""

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.jit = True
        self.downloads: dict[str, list[DownloadState]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._idle: dict[str, asyncio.TimerHandle] = {}
        self._ttls: dict[str, int] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    def add(self, model: FakeModel) -> None:
        """Put a model on the shelf."""
        self.models[model.key] = model
        if model.loaded and not model.instances:
            model.instance()

    def describe(self) -> list[ModelDescription]:
        """List the models: loaded ones first, for the first answers requests that name none."""
        models = sorted(self.models.values(), key=lambda model: (model.type in NO_CHAT, not model.instances))
        return [msgspec.structs.replace(model.describe(), on_demand=self.jit) for model in models]

    def slot(self, key: str) -> asyncio.Semaphore:
        """Give what limits the answers that a model makes at once."""
        return self._slots.setdefault(key, asyncio.Semaphore(max(1, self.models[key].parallel)))

    async def ready(self, key: str, ttl: int | None = None) -> AsyncIterator[LoadProgress]:
        """Load a model for a request that needs it, and start its idle time anew.

        Raises:
            BackendError: Loading on demand is off, or the model refuses to be loaded.
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
                    self._loaded(model, None)
        if ttl is not None or key in self._idle:
            self._forget_when_idle(key, ttl)

    async def load(self, job: LoadJob) -> Loaded:
        """Load one more instance.

        Raises:
            BackendError: The model refuses to be loaded.
        """
        model = self.models[job.model]
        for _ in range(LOAD_STEPS):
            await self._load_step(model)
        made = self._loaded(model, job)
        kind: Literal["llm", "embedding"] = "embedding" if model.type == "embeddings" else "llm"
        return Loaded(instance=made, seconds=model.load_seconds, type=kind)

    async def _load_step(self, model: FakeModel) -> None:
        if model.refuses_to_load is not None:
            message = f'Failed to load model "{model.key}". Error: {model.refuses_to_load}'
            raise BackendError(message, status=404, code="model_load_failed")
        await asyncio.sleep(model.load_seconds / LOAD_STEPS)

    def _loaded(self, model: FakeModel, job: LoadJob | None) -> Instance:
        model.loads += 1
        return model.instance(job)

    def unload(self, instance_id: str) -> None:
        """Take an instance out of memory.

        Raises:
            BackendError: There is none of that name.
        """
        for model in self.models.values():
            for instance in model.instances:
                if instance.id == instance_id:
                    model.instances.remove(instance)
                    return
        message = f'No loaded model found with instance ID "{instance_id}".'
        raise BackendError(message, status=404, type="model_not_found")

    def _forget_when_idle(self, key: str, ttl: int | None) -> None:
        if key in self._idle:
            self._idle[key].cancel()
        seconds = self._ttls[key] = self._ttls.get(key, 0) if ttl is None else ttl
        self._idle[key] = asyncio.get_running_loop().call_later(seconds, self.models[key].instances.clear)

    # --- downloads ---

    def download(self, model: str) -> DownloadState:
        """Begin a download, or go on telling of it.

        Raises:
            BackendError: No download of that model was scripted.
        """
        if model in self.models:
            return DownloadState(status="already_downloaded")
        if states := self.downloads.get(f"job_{_job(model)}"):
            return states[0]
        raise BackendError(f"Model {model!r} not found.", status=404, type="model_not_found")

    def download_state(self, job_id: str) -> DownloadState:
        """Tell the next state of a download; the last one again and again.

        Raises:
            BackendError: There is no such job.
        """
        states = self.downloads.get(job_id)
        if not states:
            raise BackendError(f"Download job {job_id} not found.", status=404, type="job_not_found")
        return states.pop(0) if len(states) > 1 else states[0]

    def plan_download(self, model: str, states: list[DownloadState]) -> str:
        """Script what a download does, and give its job id."""
        job_id = f"job_{_job(model)}"
        self.downloads[job_id] = [msgspec.structs.replace(state, job_id=job_id) for state in states]
        return job_id


def _job(model: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in model)
