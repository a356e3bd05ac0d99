"""The models that a fake pretends to have: which there are, how they load, and what a download of one is like."""

from __future__ import annotations

from typing import Literal

from lmdeck.server.jobs import DownloadState
from lmdeck.testing.models import DEFAULT_MODEL, DEFAULT_SIZE_BYTES, FakeModel, Shelf


class Modelled:
    """The words of a fake that are about its models."""

    _shelf: Shelf

    def add_model(
        self,
        key: str,
        *,
        type: Literal["llm", "vlm", "embeddings", "decision"] = "llm",  # noqa: A002  # LM Studio's word
        loaded: bool = True,
        load_seconds: float = 0.0,
        context_length: int = 4096,
        max_context_length: int = 32768,
        parallel: int = 4,
        size_bytes: int = DEFAULT_SIZE_BYTES,
        refuses_to_load: str | None = None,
    ) -> FakeModel:
        """Put a model on the list. Where it is not loaded, the first request loads it, which takes `load_seconds`."""
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
        self._shelf.add(model)
        return model

    def model(self, key: str = DEFAULT_MODEL) -> FakeModel:
        """Give a model on the list: whether it is loaded, how often it was."""
        return self._shelf.models[key]

    def remove_model(self, key: str) -> None:
        """Take a model off the list."""
        self._shelf.models.pop(key)

    def evict(self, key: str = DEFAULT_MODEL) -> None:
        """Unload a model, as LM Studio does with idle ones."""
        self._shelf.models[key].instances.clear()

    def turn_off_jit(self) -> None:
        """Answer requests for models that are not loaded with an error instead of loading them."""
        self._shelf.jit = False

    def plan_download(
        self,
        model: str,
        *,
        total_bytes: int = 1000,
        steps: int = 3,
        ends: Literal["completed", "failed", "paused"] = "completed",
    ) -> str:
        """Script a download that grows with every look at it, and give its job id."""
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
        return self._shelf.plan_download(model, states)
