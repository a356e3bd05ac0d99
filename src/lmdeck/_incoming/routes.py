"""The endpoint of a request, by its method and path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, TypeVar

from lmdeck._late_patterns import late_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Routes"]

T = TypeVar("T")


class Routes(Generic[T]):
    """Endpoints by method and path."""

    def __init__(self) -> None:
        self._fixed: dict[tuple[str, str], T] = {}
        self._templates: list[tuple[str, re.Pattern[str], T]] = []

    def add(self, method: str, path: str, endpoint: T) -> None:
        """Add an endpoint.

        `{name}` in the path stands for one segment, `{name:path}` for one or more.
        """
        if "{" not in path:
            self._fixed[method, path] = endpoint
            return
        pattern = re.escape(path).replace(":path\\}", ">.+)").replace("\\}", ">[^/]+)").replace("\\{", "(?P<")
        self._templates.append((method, late_pattern(pattern), endpoint))

    def find(self, method: str, path: str) -> tuple[T, Mapping[str, str]] | None:
        """Return the endpoint of a request and the parameters in its path, or None."""
        if (fixed := self._fixed.get((method, path))) is not None:
            return fixed, {}
        for known, pattern, endpoint in self._templates:
            if known == method and (match := pattern.fullmatch(path)) is not None:
                return endpoint, match.groupdict()
        return None
