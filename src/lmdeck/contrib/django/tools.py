"""The tools of a project: what each application's `lmdeck_tools.py` has, and what `@lm.tool` makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from django.apps import apps
from django.db import connections
from django.utils.module_loading import module_has_submodule

from lmdeck.tools.registry import ToolRegistry
from lmdeck.tools.tool import Tool

__all__ = ["discover", "registry"]

P = ParamSpec("P")
R = TypeVar("R")
MODULE = "lmdeck_tools"


class _Registry(ToolRegistry):
    """The tools of all clients of the process; handlers leave no database connection open in their threads."""

    def add(self, new: Tool[..., Any]) -> Tool[..., Any]:
        if new.is_async:  # it runs on the loop, and its queries in a thread that Django tidies up
            return super().add(new)
        return super().add(new.with_handler(_closing(new.handler)))


registry: ToolRegistry = _Registry()


def discover() -> None:
    """Register every tool in the `lmdeck_tools.py` of every installed application.

    Raises:
        ConfigurationError: Two applications have different tools of one name.
    """
    for config in apps.get_app_configs():
        if config.module is not None and module_has_submodule(config.module, MODULE):
            module = import_module(f"{config.name}.{MODULE}")
            for value in list(vars(module).values()):
                if isinstance(value, Tool):
                    registry.add(value)


def _closing(handler: Callable[P, R]) -> Callable[P, R]:
    """Close the connections that the handler opens: each call has a thread of its own, which ends with it."""

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
