"""The models of a server: what is there, and what is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lmdeck.chain.drivers import drive, drive_async
from lmdeck.client.plans import find_model, list_models
from lmdeck.client.session import Session
from lmdeck.model_info import ModelInfo
from lmdeck.transport import AsyncTransport, Transport

__all__ = ["AsyncModels", "Models"]

ModelList: TypeAlias = list[ModelInfo]  # in the classes below, `list` is their method


class Models:
    """The models, for the sync client."""

    def __init__(self, session: Session, route: Callable[[], Transport]) -> None:
        self._session = session
        self._route = route

    def list(self) -> list[ModelInfo]:
        """List every model on the server, over `/api/v1/models`, or `/api/v0/models`, or `/v1/models`.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(list_models(self._session), self._route())

    def loaded(self) -> ModelList:
        """List the models that are in memory.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return [model for model in self.list() if model.loaded]

    def get(self, key: str) -> ModelInfo:
        """Give one model, by its key or by the id of a loaded instance.

        Raises:
            ModelNotFoundError: The server has none of that name; `available` lists the ones it has.
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return drive(find_model(self._session, key), self._route())


class AsyncModels:
    """The models, for the async client."""

    def __init__(self, session: Session, route: Callable[[], AsyncTransport]) -> None:
        self._session = session
        self._route = route

    async def list(self) -> list[ModelInfo]:
        """List every model on the server, over `/api/v1/models`, or `/api/v0/models`, or `/v1/models`.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return await drive_async(list_models(self._session), self._route())

    async def loaded(self) -> ModelList:
        """List the models that are in memory.

        Raises:
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return [model for model in await self.list() if model.loaded]

    async def get(self, key: str) -> ModelInfo:
        """Give one model, by its key or by the id of a loaded instance.

        Raises:
            ModelNotFoundError: The server has none of that name; `available` lists the ones it has.
            LMStudioError: The server cannot be reached, refuses, or has no model list.
        """
        return await drive_async(find_model(self._session, key), self._route())
