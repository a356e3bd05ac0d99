"""The base class of both clients: their settings, tools and event handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from lmdeck._event_bus import Subscription
from lmdeck._plans.session import Session
from lmdeck.config import Settings
from lmdeck.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from lmdeck.tools.tool import Tool

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E")


class ClientBase:
    """The settings, tools and event handlers of one client."""

    _session: Session

    @property
    def settings(self) -> Settings:
        """The settings in use; the token in them is never shown."""
        return self._session.settings

    @property
    def base_url(self) -> str:
        """The server's root, without the API's own prefix."""
        return self._session.address.root

    @property
    def tools(self) -> ToolRegistry:
        """The registered tools; `with_tools` accepts their names."""
        return self._session.tools

    @overload
    def tool(self, function: Callable[P, R], /) -> Tool[P, R]: ...
    @overload
    def tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        repeatable: bool = False,
    ) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
    def tool(  # type: ignore[misc]  # mypy takes the class's own `tool` for the function's
        self, function: Callable[P, R] | None = None, /, *, name: str | None = None, description: str | None = None,
        timeout: float | None = None, repeatable: bool = False,
    ) -> Tool[P, R] | Callable[[Callable[P, R]], Tool[P, R]]:  # fmt: skip
        """Create a tool from a function, as `lmdeck.tool` does, and register it with this client.

        Raises:
            ConfigurationError: It cannot be described, LM Studio would rewrite its name, or the name is taken.
        """
        from lmdeck.tools.tool import tool  # imported late: few clients have tools

        def make(function: Callable[P, R]) -> Tool[P, R]:
            made = tool(name=name, description=description, timeout=timeout, repeatable=repeatable)(function)
            self._session.tools.add(made)
            return made

        return make if function is None else make(function)

    @overload
    def on(self, kind: type[E], handler: Callable[[E], object], *, once: bool = False) -> Subscription: ...
    @overload
    def on(self, kind: type[E], *, once: bool = False) -> Callable[[Callable[[E], object]], Callable[[E], object]]: ...
    def on(
        self, kind: type[E], handler: Callable[[E], object] | None = None, *, once: bool = False
    ) -> Subscription | Callable[[Callable[[E], object]], Callable[[E], object]]:
        """Register a handler for every event of a type or, with `once`, for the next one.

        Without a handler, return a decorator. `lmdeck.events` has the types. An exception in a handler is logged and has no
        other effect. `Subscription.remove` unregisters the handler.

        Raises:
            ConfigurationError: `kind` is not an event type, or the handler is async and the client is not.
        """
        if handler is None:
            return self._session.bus.on(kind, once=once)
        return self._session.bus.on(kind, handler, once=once)

    def register_tool(
        self, name: str, *, handler: Callable[..., Any], description: str = "",
        parameters: Mapping[str, Any] | None = None, required: Sequence[str] | None = None,
        timeout: float | None = None, repeatable: bool = False,
    ) -> Tool[..., Any]:  # fmt: skip
        """Register a tool.

        `parameters` is a JSON Schema or its short form, `{"city": {"type": "string"}}`; without it, the handler's signature is
        used.

        Raises:
            ConfigurationError: The parameters are not a schema, LM Studio would rewrite the name, or the name is taken.
        """
        from lmdeck.tools.tool import make_tool

        made = make_tool(
            name, handler=handler, description=description, parameters=parameters, required=required, timeout=timeout,
            repeatable=repeatable,
        )  # fmt: skip
        return self._session.tools.add(made)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"
