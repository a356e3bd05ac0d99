"""Checks of the arguments that a program passes, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from lmdeck.errors import ConfigurationError

T = TypeVar("T")


def wrong_type(what: str, expected: str, value: object, hint: str) -> ConfigurationError:
    """Return the error for an argument that is not of the expected type."""
    return ConfigurationError(f"{what} must be {expected}, not {type(value).__name__}.", hint=hint)


def checked_text(value: str, what: str, hint: str = "Pass a string; of a reply, pass its `content`.") -> str:
    """Return an argument that must be text.

    Raises:
        ConfigurationError: It is not text.
    """
    if not isinstance(value, str):
        raise wrong_type(what, "text", value, hint)
    return value


def checked_model(model: str | None) -> str | None:
    """Return the name of a model, or None.

    Raises:
        ConfigurationError: It is neither text nor None.
    """
    return None if model is None else checked_text(model, "The model", "Pass the model's key, or None for the default.")


def checked_list(values: Iterable[T], what: str, hint: str, *, expected: str = "a list") -> list[T]:
    """Return the items of an argument that must be a list, or another iterable.

    Raises:
        ConfigurationError: It is a single value: text, bytes, a dict, or not iterable.
    """
    if isinstance(values, (str, bytes, bytearray, Mapping)) or not isinstance(values, Iterable):
        raise wrong_type(what, expected, values, hint)
    return list(values)
