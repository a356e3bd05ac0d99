"""The base of all observers: listening to a client's events, and bounded labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from lmdeck._client.clients import AsyncLMStudio, LMStudio

Client: TypeAlias = "LMStudio | AsyncLMStudio"
MAX_LABELS = 200
OTHER = "other"


class Observation:
    """An observer that listens to a client until `close`; also a context manager."""

    def __init__(self, client: Client, listeners: Mapping[type, Callable[[Any], object]]) -> None:
        self._subscriptions = [client.on(kind, listener) for kind, listener in listeners.items()]

    def close(self) -> None:
        """Stop observing."""
        for subscription in self._subscriptions:
            subscription.remove()
        self._subscriptions = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BoundedLabels:
    """The values of a label: the first `most` as they are, every further one as `"other"`.

    A metric therefore stays small.
    """

    def __init__(self, most: int = MAX_LABELS) -> None:
        self._known: set[str] = set()
        self._most = most

    def __call__(self, value: str) -> str:
        """Return the value of the label."""
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value

    def known(self, value: str) -> str:
        """Return a value that was used before, else `"other"`: for values that clients may invent."""
        return value if value in self._known else OTHER


@lru_cache(maxsize=256)
def operation_of(endpoint: str) -> str:
    """Return OpenTelemetry's name for an endpoint's operation; `""` if no model is used."""
    return next((name for ending, name in OPERATIONS if endpoint.endswith(ending)), "")


OPERATIONS = (
    ("/chat/completions", "chat"),
    ("/v1/completions", "text_completion"),
    ("/v1/embeddings", "embeddings"),
    ("/v1/messages", "chat"),
    ("/v1/responses", "chat"),
    ("/api/v1/chat", "chat"),
    ("/v1/decisions", "decide"),
    ("/v1/systemone", "decide"),
)
