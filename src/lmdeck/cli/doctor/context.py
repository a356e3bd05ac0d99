"""What the doctor's checks look at, and in what they say what they found."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from lmdeck._client.clients import LMStudio
from lmdeck._responses.model_lists import choose_model
from lmdeck.model_info import Health, ModelInfo, ModelInstance

__all__ = ["Concern", "Finding", "NotKnown", "Patient"]

Outcome = Literal["ok", "warning", "failed", "skipped"]


class Finding(Struct, frozen=True, kw_only=True):
    """What one check found; `fix` says what to do where it failed or warns."""

    check: str
    outcome: Outcome
    detail: str
    fix: str = ""


class Concern(Exception):  # noqa: N818  # no error: it works, and may surprise
    """What works, but not as one would expect; `fix` says what to do about it."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


class NotKnown(Exception):  # noqa: N818  # no error: the server does not tell
    """There is nothing to check."""


class Patient(Struct, kw_only=True):
    """What the checks look at, and what earlier ones learned."""

    lm: LMStudio
    health: Health
    models: list[ModelInfo] = []

    @property
    def product(self) -> str:
        """What answers, and its version where that is known."""
        version = f" {self.health.version}" if self.health.version else ""
        return f"{self.health.product or 'a server'}{version}"

    @property
    def wanted(self) -> str:
        """The model that a chat without a model's name is answered by."""
        return self.lm.settings.model or choose_model(self.models)

    def find(self, name: str) -> tuple[ModelInfo | None, ModelInstance | None]:
        """Find a model and its instance, by the name of either."""
        for model in self.models:
            for instance in model.instances:
                if name in (instance.id, model.key):
                    return model, instance
        return next((model for model in self.models if model.key == name), None), None
