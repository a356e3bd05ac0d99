"""Testing without LM Studio: a fake server over HTTP, faults, recordings and verdicts.

`pip install "lmdeck[testing]"` also installs the pytest fixtures `fake_lmstudio` and `async_fake_lmstudio`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmdeck.testing.fake import FakeLMStudio
    from lmdeck.testing.faults import Fault
    from lmdeck.testing.isolation import RealRequestError
    from lmdeck.testing.mixin import FakeLMStudioMixin
    from lmdeck.testing.raw import RawAnswer
    from lmdeck.testing.received_requests import SentRequest
    from lmdeck.testing.scripted_answers import Answer, PlannedCall

__all__ = [
    "Answer",
    "FakeLMStudio",
    "FakeLMStudioMixin",
    "Fault",
    "PlannedCall",
    "RawAnswer",
    "RealRequestError",
    "SentRequest",
]

_MODULES = {
    "Answer": "scripted_answers",
    "FakeLMStudio": "fake",
    "FakeLMStudioMixin": "mixin",
    "Fault": "faults",
    "PlannedCall": "scripted_answers",
    "RawAnswer": "raw",
    "RealRequestError": "isolation",
    "SentRequest": "received_requests",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used, since the server needs an extra."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "uvicorn":
            raise
        from lmdeck.errors import ConfigurationError

        raise ConfigurationError(
            f"The fake LM Studio needs the package {error.name}, which is not installed.",
            hint='Install it with `pip install "lmdeck[testing]"`.',
        ) from error
