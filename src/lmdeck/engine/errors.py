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
    """Raise an error that names the extra to install if an import fails.

    Raises:
        EngineError: A package of the extra is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"mistralrs", "gguf", "starlette", "uvicorn"}:
            raise
        raise EngineError(
            f"The embedded engine needs the package {missing}, which is not installed.",
            hint='Install it with `pip install "lmdeck[engine]"`.',
        ) from error
