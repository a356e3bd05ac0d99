"""The Flask extension: the client of an application, and its commands."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from lmdeck._client.clients import AsyncLMStudio, LMStudio
from lmdeck._forking import on_fork
from lmdeck.cli.commands import COMMANDS
from lmdeck.config import ClientSettings
from lmdeck.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class LMDeck:
    """The extension of a Flask application: `LMDeck(app)`, or `LMDeck().init_app(app)`.

    The settings are `app.config["LMDECK"]`, the client's keywords in capitals; missing ones come from the environment and the
    configuration files.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._client: LMStudio | None = None
        self._streaming: AsyncLMStudio | None = None
        self._settings: ClientSettings = {}
        self._renew_lock()
        on_fork(self, LMDeck._renew_lock)
        if app is not None:
            self.init_app(app)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # also after a fork: a thread of the parent may have held the old one

    def init_app(self, app: Flask) -> None:
        """Register the extension with an application.

        Raises:
            ConfigurationError: A key of `LMDECK` is not a setting.
        """
        self._settings = _settings(app.config.get("LMDECK", {}))
        app.extensions["lmdeck"] = self
        app.cli.add_command(_commands(self))

    @property
    def client(self) -> LMStudio:
        """The client; a forked process opens its own connections."""
        return self._current()[0]

    @property
    def streaming_client(self) -> AsyncLMStudio:
        """The client that streams answers, on the event loop of `lmdeck.web.background_loop`."""
        return self._current()[1]

    def _current(self) -> tuple[LMStudio, AsyncLMStudio]:
        with self._lock:
            if self._client is None or self._streaming is None:
                self._client, self._streaming = LMStudio(**self._settings), AsyncLMStudio(**self._settings)
            return self._client, self._streaming


def extension() -> LMDeck:
    """Return the extension of the current application.

    Raises:
        ConfigurationError: The application has no `LMDeck` extension.
    """
    found = current_app.extensions.get("lmdeck")
    if not isinstance(found, LMDeck):
        raise ConfigurationError("This application has no LMDeck extension.", hint="Add it with `LMDeck(app)`.")
    return found


def _settings(configured: Mapping[str, Any]) -> ClientSettings:
    known = {name.upper(): name for name in ClientSettings.__annotations__}
    unknown = [key for key in configured if key not in known]
    if unknown:
        raise ConfigurationError(
            f'app.config["LMDECK"] has no setting {unknown[0]!r}.', hint=f"Its settings are {', '.join(sorted(known))}."
        )
    return cast("ClientSettings", {known[key]: value for key, value in configured.items()})


def _commands(lmdeck: LMDeck) -> AppGroup:
    group = AppGroup("lmdeck", help="lmdeck's commands, with this application's settings.")

    def add(name: str, summary: str) -> None:
        @group.command(
            name,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
            help=f"{summary}.",
        )
        @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
        def run(arguments: tuple[str, ...]) -> None:
            raise SystemExit(_run(lmdeck, name, arguments))

    for command in COMMANDS:
        if command.asks_server:
            add(command.name, command.summary)
    return group


def _run(lmdeck: LMDeck, name: str, arguments: tuple[str, ...]) -> int:
    from lmdeck.cli import run

    return run([name, *arguments], lmdeck._settings, "flask lmdeck")  # noqa: SLF001  # this module's own class
