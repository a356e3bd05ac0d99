"""The tools of a client, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from lmdeck._arguments import wrong_type
from lmdeck.errors import ConfigurationError, UnknownToolError

if TYPE_CHECKING:
    from lmdeck.tools.tool import Tool

Offer: TypeAlias = "Tool[..., Any] | Callable[..., Any] | Mapping[str, Any] | str"


class ToolRegistry:
    """A registry of tools with unique names; a function may be redefined, as in a notebook."""

    def __init__(self, tools: Iterable[Tool[..., Any]] = ()) -> None:
        self._tools: dict[str, Tool[..., Any]] = {}
        for item in tools:
            self.add(item)

    def add(self, new: Tool[..., Any]) -> Tool[..., Any]:
        """Add a tool.

        Raises:
            ConfigurationError: Another tool has this name.
        """
        known = self._tools.get(new.name)
        if known is not None and _origin(known) != _origin(new):
            raise ConfigurationError(
                f"A tool named {new.name!r} is already registered.", hint="Choose a unique name for every tool."
            )
        self._tools[new.name] = new
        return new

    def get(self, name: str) -> Tool[..., Any]:
        """Return a tool by name.

        Raises:
            UnknownToolError: No tool has this name.
        """
        if name not in self._tools:
            raise UnknownToolError(
                f"No tool named {name!r} is registered.",
                hint=f"The registered tools are: {', '.join(self._tools) or 'none'}.",
            )
        return self._tools[name]

    def __iter__(self) -> Iterator[Tool[..., Any]]:
        return iter(list(self._tools.values()))

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools


def offered_tool(offer: Offer, registry: ToolRegistry) -> Tool[..., Any] | Mapping[str, Any]:
    """Return the tool for a `Tool`, a function or a registered name.

    An OpenAI-style dict is returned unchanged.

    Raises:
        ConfigurationError: The signature of a function cannot be described, or it is none of these.
        UnknownToolError: No tool of that name is registered.
    """
    from lmdeck.tools.tool import Tool, tool  # imported late: most chats offer no tools

    if isinstance(offer, str):
        return registry.get(offer)
    if isinstance(offer, (Tool, Mapping)):
        return offer
    if hasattr(offer, "to_dict"):
        described: Mapping[str, Any] = offer.to_dict()
        return described
    if not callable(offer):
        raise wrong_type("A tool", "a function, a Tool, a dict or a name", offer, "Create one with `lmdeck.tool`.")
    return tool(offer)


def _origin(item: Tool[..., Any]) -> tuple[str, str]:
    """Return the module and qualified name of a tool's function.

    They identify a function that was defined again.
    """
    handler = item.handler
    return getattr(handler, "__module__", ""), getattr(handler, "__qualname__", repr(handler))
