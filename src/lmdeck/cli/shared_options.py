"""The options of every command: server, timeout, debug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from lmdeck._client.clients import LMStudio
    from lmdeck.config import ClientSettings

Model = Annotated[str | None, typer.Option(metavar="NAME", help="The model (LMDECK_MODEL; default: the loaded one).")]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="A system message.")]
ListenHost = Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")]
ListenPort = Annotated[
    int, typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on; 0 selects a free one.")
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST", help="A host name, besides localhost, that clients may use; repeatable. `*` allows any."
    ),
]

ADDRESS = {"host", "port", "base_url"}


class Shared:
    """The client's settings in levels.

    These are the project's settings, the options before the command, and those after it.
    """

    def __init__(self, *levels: dict[str, Any]) -> None:
        self.levels = levels

    @property
    def settings(self) -> ClientSettings:
        """The settings of all levels.

        An address of a later level replaces an earlier one as a whole.

        Raises:
            ConfigurationError: An option is invalid; the message names it.
        """
        from lmdeck.config import check_setting  # imported late: not every command has settings

        merged: dict[str, Any] = {}
        for number, level in enumerate(self.levels):
            for name, value in level.items() if number else ():
                check_setting(name, value, f"the option --{name.replace('_', '-')}")
            if level.keys() & ADDRESS:
                merged = {name: value for name, value in merged.items() if name not in ADDRESS}
            merged |= level
        return cast("ClientSettings", merged)

    @property
    def debug(self) -> bool:
        """Whether to show tracebacks, and log requests and chunks."""
        return any(level.get("debug") for level in self.levels)

    def client(self) -> LMStudio:
        """Return a client with these settings."""
        from lmdeck._client.clients import LMStudio

        return LMStudio(**self.settings)

    def with_level(self) -> Shared:
        """Return the same settings with an empty level on top, for the options of a command."""
        return Shared(*self.levels, {})
