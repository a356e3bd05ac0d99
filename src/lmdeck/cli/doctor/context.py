"""The input and the results of the doctor's checks."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from lmdeck._client.clients import LMStudio
from lmdeck._responses.model_lists import choose_model
from lmdeck.model_info import Health, ModelInfo, ModelInstance

Outcome = Literal["ok", "warning", "failed", "skipped"]


class CheckResult(Struct, frozen=True, kw_only=True):
    """The result of one check; `fix` says what to do after a failure or a warning."""

    check: str
    outcome: Outcome
    detail: str
    fix: str = ""


class CheckWarning(Exception):  # a warning, not an error
    """A possible problem that a check found; `fix` says what to do about it."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


class CheckSkipped(Exception):  # a check that does not apply is not an error
    """The server does not report what a check needs."""


class DoctorContext(Struct, kw_only=True):
    """The client to check, and the results of earlier checks that later ones use."""

    lm: LMStudio
    health: Health
    models: list[ModelInfo] = []

    @property
    def product(self) -> str:
        """The server's product, with its version if known."""
        version = f" {self.health.version}" if self.health.version else ""
        return f"{self.health.product or 'a server'}{version}"

    @property
    def wanted(self) -> str:
        """The model that answers a chat without a model name."""
        return self.lm.settings.model or choose_model(self.models)

    def find(self, name: str) -> tuple[ModelInfo | None, ModelInstance | None]:
        """Return a model and its loaded instance, by the name of either."""
        for model in self.models:
            for instance in model.instances:
                if name in (instance.id, model.key):
                    return model, instance
        return next((model for model in self.models if model.key == name), None), None
