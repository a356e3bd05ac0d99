"""The client of an application: made when it starts, closed when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, TypeAlias, Unpack

from fastapi import Depends, FastAPI, Request

from lmdeck._client.clients import AsyncLMStudio
from lmdeck.config import ClientSettings
from lmdeck.errors import ConfigurationError

__all__ = ["LM", "Lifespan", "client_of", "lifespan"]

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]
_NAME = "lmdeck_client"


def lifespan(wraps: Lifespan | None = None, **settings: Unpack[ClientSettings]) -> Lifespan:
    """Make the `lifespan` of an application that owns an `AsyncLMStudio`; `wraps` is the application's own, if it has one.

    The keywords are those of `AsyncLMStudio`; what is left out comes from the environment and files, as always.

    Raises:
        ConfigurationError: A setting is wrong; raised when the application starts.
    """

    @asynccontextmanager
    async def owning(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncLMStudio(**settings) as client:
            if wraps is None:
                yield {_NAME: client}
                return
            async with wraps(app) as state:
                yield {**(state or {}), _NAME: client}

    return owning


def client_of(request: Request) -> AsyncLMStudio:
    """Give the application's client, as a dependency.

    Raises:
        ConfigurationError: The application has no `lifespan` of lmdeck.
    """
    client = getattr(request.state, _NAME, None)
    if not isinstance(client, AsyncLMStudio):
        raise ConfigurationError(
            "This application has no lmdeck client.",
            hint="Make it with `FastAPI(lifespan=lmdeck.contrib.fastapi.lifespan())`.",
        )
    return client


LM = Annotated[AsyncLMStudio, Depends(client_of)]
"""The application's client, as the type of a parameter: `async def ask(lm: LM): …`."""
