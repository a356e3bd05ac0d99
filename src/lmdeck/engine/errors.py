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
    """Turn a failed import into an error that names what to install.

    Raises:
        EngineError: A package of the extra, or a system library that it needs, is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"xllamacpp", "llguidance", "gguf", "uvicorn"}:
            raise
        raise EngineError(
            f"The embedded engine needs the package {missing}, which is not installed.",
            hint='Install it with `pip install "lmdeck[engine]"`.',
        ) from error
    except ImportError as error:
        raise EngineError(
            f"The embedded engine cannot be loaded: {error}.",
            hint="Install the missing system library; on Debian and Ubuntu, libgomp is in the package libgomp1.",
        ) from error
