"""Errors of the embedded engine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmdeck.errors import LMStudioError

if TYPE_CHECKING:
    from collections.abc import Iterator


class EngineError(LMStudioError):
    """The embedded engine cannot be installed, loaded or served."""

    default_hint = "Run `lmdeck engine pull`, then `lmdeck engine serve`."


@contextmanager
def needs_extra() -> Iterator[None]:
    """Raise an error that names what to install if an import fails.

    Raises:
        EngineError: A package of the extra is missing, or a library of the system that one needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"xllamacpp", "llguidance", "gguf", "starlette", "uvicorn"}:
            raise
        raise EngineError(
            f"The embedded engine needs the package {missing}, which is not installed.",
            hint='Install it with `pip install "lmdeck[engine]"`.',
        ) from error
    except ImportError as error:
        raise EngineError(
            f"The embedded engine cannot be loaded: {error}.",
            hint="Install the system's library that is missing; libgomp is the package libgomp1 of Debian and Ubuntu.",
        ) from error
