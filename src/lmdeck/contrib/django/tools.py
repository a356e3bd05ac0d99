"""The tools of a project: those in `lmdeck_tools.py` files, and those of `@lm.tool`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from django.apps import apps
from django.conf import settings
from django.db import connections
from django.utils.module_loading import module_has_submodule

from lmdeck.tools.registry import ToolRegistry
from lmdeck.tools.tool import Tool

P = ParamSpec("P")
R = TypeVar("R")
MODULE = "lmdeck_tools"


class _Registry(ToolRegistry):
    """The tools of all clients of the process.

    Database connections of sync handlers are closed after each call.
    """

    def add(self, new: Tool[..., Any]) -> Tool[..., Any]:
        if new.is_async:  # it runs on the event loop, and its queries in threads that Django cleans up
            return super().add(new)
        return super().add(new.with_handler(_closing(new.handler)))


registry: ToolRegistry = _Registry()


def discover() -> None:
    """Register all tools in `lmdeck_tools.py` of the project's package and its applications.

    Raises:
        ConfigurationError: Two applications have different tools with the same name.
    """
    packages = [config.module for config in apps.get_app_configs()]
    for package in dict.fromkeys([project_package(), *packages]):
        if package is not None and module_has_submodule(package, MODULE):
            module = import_module(f"{package.__name__}.{MODULE}")
            for value in list(vars(module).values()):
                if isinstance(value, Tool):
                    registry.add(value)


def project_package() -> ModuleType | None:
    """Return the package of the project's URL configuration; None if that is not in a package."""
    name = str(getattr(settings, "ROOT_URLCONF", "")).rpartition(".")[0]
    try:
        return import_module(name) if name else None
    except ImportError:
        return None


def _closing(handler: Callable[P, R]) -> Callable[P, R]:
    """Close the database connections that the handler opens.

    Each call runs in a new thread.
    """

    @wraps(handler)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = {connection.alias for connection in connections.all(initialized_only=True)}
        try:
            return handler(*args, **kwargs)
        finally:
            for connection in connections.all(initialized_only=True):
                if connection.alias not in before:
                    connection.close()

    return call
