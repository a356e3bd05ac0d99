"""The store's error class."""

from __future__ import annotations

from lmdeck.errors import LMStudioError

__all__ = ["StoreError"]


class StoreError(LMStudioError):
    """The store of keys and usage cannot be read or written at the moment."""

    default_hint = "Check that the store's file or its database server is reachable; its address is `[store] url`."
