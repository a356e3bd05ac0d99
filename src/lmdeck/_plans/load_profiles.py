"""The load profiles of one client: options with which a model is loaded before a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmdeck._pipeline.loading import READY_SECONDS


class LoadProfiles:
    """The load options by model, and which of them were applied a short time ago."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]], clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._applied_until: dict[str, float] = {}
        self._warned: set[str] = set()

    def to_apply(self, model: str) -> Mapping[str, Any] | None:
        """Return the load options of a model.

        None if there are none, or they were applied a short time ago.
        """
        options = self._options.get(model)
        if not options or self._clock() < self._applied_until.get(model, 0.0):
            self.note_applied(model)
            return None
        return options

    def note_applied(self, model: str) -> None:
        """Note that the profile of a model is applied."""
        if model in self._options:
            self._applied_until[model] = self._clock() + READY_SECONDS

    def should_warn(self, model: str) -> bool:
        """Return True once for each model."""
        is_first = model not in self._warned
        self._warned.add(model)
        return is_first
