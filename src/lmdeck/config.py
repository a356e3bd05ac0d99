"""Settings: what they are called, where they come from, and what is wrong with a bad one.

Each setting is found on its own, in this order: keyword argument, environment, `lmdeck.toml` or `[tool.lmdeck]` in
`pyproject.toml` of the working directory or the nearest folder above it up to the project's root, default. Nothing is read at
import, and nothing but these places is read at all. What a file may say is in `_setting_sources`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from msgspec import Struct
from msgspec.structs import fields, replace

from lmdeck._secret import Secret, redact_url
from lmdeck._setting_checks import CHECKS
from lmdeck._setting_sources import (
    ELSEWHERE,
    Found,
    check_trust,
    from_environment,
    from_files,
    from_keywords,
    misspelt,
    without_foreign_ways,
)
from lmdeck.errors import ConfigurationError

__all__ = ["ClientSettings", "Secret", "Settings", "check_setting", "meant", "redact_url"]

_log = logging.getLogger("lmdeck.config")
_told: set[str] = set()


class Settings(Struct, frozen=True, kw_only=True, dict=True):
    """Everything a client can be told; times are seconds.

    `timeout` is the longest silence between two bytes of an answer, `first_token_timeout` the longest wait for its first
    byte, `total_timeout` the longest an answer may take as a whole (`None`: no limit). `proxy` is a URL; the environment's
    proxies are not used, since the server is local. `max_concurrency` is how many answers are asked for at once while the
    others wait in a fair queue (`None`: as many as the loaded model answers in parallel, else 4; servers that are not LM Studio
    have their own queue). `without_rules` names the
    rules of `lmdeck.rules()` by which requests are not changed. `tls_verify`,
    `tls_ca_file`, `tls_client_cert` and `tls_client_key` serve an LM Studio behind an HTTPS proxy.
    """

    host: str = "localhost"
    port: int = 1234
    base_url: str | None = None
    model: str | None = None
    api_token: Secret | None = None
    timeout: float = 60.0
    first_token_timeout: float = 600.0
    connect_timeout: float = 5.0
    total_timeout: float | None = None
    retry_attempts: int = 3
    retry_delay: float = 0.1
    max_concurrency: int | None = None
    without_rules: tuple[str, ...] = ()
    debug: bool = False
    proxy: str | None = None
    tls_verify: bool = True
    tls_ca_file: str | None = None
    tls_client_cert: str | None = None
    tls_client_key: str | None = None

    @classmethod
    def resolve(
        cls,
        given: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Find every setting: in `given`, the environment, the configuration file of `folder`, or its default.

        Raises:
            ConfigurationError: A value is bad, a name unknown, a file unreadable, or the user's token would go where a
                project's file says; the message names setting, value and origin.
        """
        variables = os.environ if environ is None else environ
        chosen: dict[str, Found] = {}
        for source in (from_keywords(given or {}), from_environment(variables), from_files(folder or Path())):
            values = {found.name: _checked(found) for found in source}
            if "base_url" in chosen or chosen.keys() & {"host", "port"}:
                # A host named nearer to the caller is not overruled by an address named further away, nor the reverse.
                values = {name: found for name, found in values.items() if not _names_an_address(name, chosen)}
            chosen = {**values, **chosen}
        chosen, notes = without_foreign_ways(chosen)
        check_trust(chosen)
        settings = cls(**{name: found.value for name, found in chosen.items()})
        settings.__dict__["origins"] = {name: found.origin for name, found in chosen.items()}
        settings.__dict__["notes"] = (*misspelt(variables), *notes)
        settings._tell_notes()
        return settings

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each setting was found, in words; one that is not in it has its default."""
        return dict(self.__dict__.get("origins", {}))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and is not used, in sentences: misspelt variables, and what a project's file may not say."""
        return tuple(self.__dict__.get("notes", ()))

    def _tell_notes(self) -> None:
        for note in self.notes:
            if note not in _told:
                _told.add(note)
                _log.warning("%s", note)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [
            (name, redact_url(value) if value and name in {"base_url", "proxy"} else value) for name, value in values
        ]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__


class ClientSettings(TypedDict, total=False):
    """The keywords of a client, for type checkers and editors; `None` means "look further"."""

    host: str | None
    port: int | None
    base_url: str | None
    model: str | None
    api_token: str | Secret | None
    timeout: float | None
    first_token_timeout: float | None
    connect_timeout: float | None
    total_timeout: float | None
    retry_attempts: int | None
    retry_delay: float | None
    max_concurrency: int | None
    without_rules: str | Sequence[str] | None
    debug: bool | None
    proxy: str | None
    tls_verify: bool | None
    tls_ca_file: str | os.PathLike[str] | None
    tls_client_cert: str | os.PathLike[str] | None
    tls_client_key: str | os.PathLike[str] | None


def check_setting(name: str, value: object, origin: str) -> None:
    """Check one setting's value, which was found at `origin`.

    Raises:
        ConfigurationError: There is no such setting, or the value is bad; the message names setting, value and origin.
    """
    _checked(Found(name, value, origin))


def _names_an_address(name: str, chosen: Mapping[str, object]) -> bool:
    return name == "base_url" or (name in {"host", "port"} and "base_url" in chosen)


def _checked(found: Found) -> Found:
    """Return what was found with the value that the setting has."""
    check = CHECKS.get(found.name)
    if check is None:
        hint = meant(found.name, Settings.__struct_fields__)
        raise ConfigurationError(f"{found.origin}: there is no setting {found.name!r}.", hint=hint)
    try:
        return replace(found, value=check(found.value))
    except ValueError as error:
        shown = repr(_harmless(found))
        raise ConfigurationError(
            f"The setting {found.name!r} must be {error}, not {shown} (from {found.origin}).",
            hint=f"Correct {found.origin}.",
        ) from None


def meant(name: str, known: Sequence[str]) -> str:
    """Ask after the one of the `known` names that a wrong one was meant to be, if there is one, and tell all of them."""
    from difflib import get_close_matches  # here, because most programs name nothing wrong

    names = {each.lower(): each for each in known}
    elsewhere = ELSEWHERE.get(name.lower())
    nearest = [elsewhere] if elsewhere in names else get_close_matches(name.lower(), names, n=1)
    asked = f"Did you mean {names[nearest[0]]!r}? " if nearest else ""
    return f"{asked}There are: {', '.join(known)}."


def _harmless(found: Found) -> object:
    if found.name == "api_token":
        return "***"
    is_address = found.name in {"host", "base_url", "proxy"} and isinstance(found.value, str)
    return redact_url(found.value) if is_address else found.value


assert CHECKS.keys() == {entry.name for entry in fields(Settings)}  # noqa: S101  # a setting without a check is a slip of ours
