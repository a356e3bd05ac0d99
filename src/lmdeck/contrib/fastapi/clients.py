"""The client of an application: created at startup, closed at shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, TypeAlias, Unpack

from fastapi import Depends, FastAPI, Request

from lmdeck._client.clients import AsyncLMStudio
from lmdeck.config import ClientSettings
from lmdeck.errors import ConfigurationError

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any] | None]]
_NAME = "lmdeck_client"


def lifespan(wraps: Lifespan | None = None, **settings: Unpack[ClientSettings]) -> Lifespan:
    """Return a `lifespan` for an application that owns an `AsyncLMStudio`.

    `wraps` is the application's other lifespan.

    The keywords are those of `AsyncLMStudio`; missing ones come from the environment and the configuration files.

    Raises:
        ConfigurationError: A setting is invalid; raised when the application starts.
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
    """Return the application's client; a FastAPI dependency.

    Raises:
        ConfigurationError: The application was created without lmdeck's `lifespan`.
    """
    client = getattr(request.state, _NAME, None)
    if not isinstance(client, AsyncLMStudio):
        raise ConfigurationError(
            "This application has no lmdeck client.",
            hint="Create it with `FastAPI(lifespan=lmdeck.contrib.fastapi.lifespan())`.",
        )
    return client


LM = Annotated[AsyncLMStudio, Depends(client_of)]
"""The application's client, as the type of a parameter: `async def ask(lm: LM): …`."""
