"""The extra to install, where an integration's package is missing."""

from __future__ import annotations


def missing_extra(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Return an error that names the extra to install.

    If one of lmdeck's own modules is missing, return the same error.
    """
    name = (error.name or "").partition(".")[0]
    if name == "lmdeck":
        return error
    message = f"This part of lmdeck needs the package {name!r}, which is not installed."
    message += f' Install it with `pip install "lmdeck[{extra}]"`.'
    return ModuleNotFoundError(message, name=name)
