"""The settings of a client: their names, where they come from, and their checks.

Each setting is looked up separately, in this order: keyword argument, environment, `lmdeck.toml` or `[tool.lmdeck]` in
`pyproject.toml` of the working directory or the nearest folder above it up to the project's root, default. No other place is
read, and nothing at import. `lmdeck._settings.sources` defines which settings a file may have.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._secret import Secret, redact_url
from lmdeck._settings.checks import CHECKS
from lmdeck._settings.sources import (
    FOREIGN_NAMES,
    FoundSetting,
    check_trust,
    from_environment,
    from_files,
    from_keywords,
    from_lm_studio,
    misspelled_variables,
    untrusted_address,
    without_untrusted_routes,
)
from lmdeck.errors import ConfigurationError, printable

if TYPE_CHECKING:
    from lmdeck._settings.keywords import ClientSettings as ClientSettings

__all__ = ["ClientSettings", "Secret", "Settings", "check_setting", "did_you_mean", "redact_url"]

_log = logging.getLogger("lmdeck.config")
_logged_notes: set[str] = set()


class Settings(Struct, frozen=True, kw_only=True, dict=True):
    """The settings of a client; times are in seconds.

    `timeout` is the longest silence between two bytes of an answer, `first_token_timeout` the longest wait for its first byte,
    `total_timeout` the longest time for a whole answer (`None`: no limit). `proxy` is a URL; proxies of the environment are not
    used, since the server is local. `max_concurrency` is the number of simultaneous requests; further ones wait in a fair queue
    (`None`: as many as the loaded model answers in parallel, else 4; servers other than LM Studio have their own queue).
    `without_rules` names the rules of `lmdeck.rules()` that are not applied to requests. `discover` takes the port from LM
    Studio's own file if no address is set. `profiles` are load options by model, with which a model is loaded before its first
    request. `tls_verify`, `tls_ca_file`, `tls_client_cert` and `tls_client_key` are for an
    LM Studio behind an HTTPS proxy.
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
    discover: bool = False
    profiles: Mapping[str, Mapping[str, Any]] = {}
    proxy: str | None = None
    tls_verify: bool = True
    tls_ca_file: str | None = None
    tls_client_cert: str | None = None
    tls_client_key: str | None = None

    @classmethod
    def resolve(
        cls,
        keywords: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Return the settings of `keywords`, the environment and the file of `folder`, or defaults.

        Raises:
            ConfigurationError: A value is invalid, a name unknown or a file unreadable, or the user's token would be sent to
                an address from a project's file; the message names setting, value and origin.
        """
        variables = os.environ if environ is None else environ
        chosen: dict[str, FoundSetting] = {}
        for source in (from_keywords(keywords or {}), from_environment(variables), from_files(folder or Path())):
            values = {found.name: _checked(found) for found in source}
            if "base_url" in chosen or chosen.keys() & {"host", "port"}:
                # A base URL does not override a host from a source of higher priority, nor the reverse.
                values = {name: found for name, found in values.items() if not _is_overridden_address(name, chosen)}
            chosen = {**values, **chosen}
        if "discover" in chosen and chosen["discover"].value and not chosen.keys() & {"base_url", "host", "port"}:
            chosen.update({found.name: found for found in from_lm_studio(Path.home())})
        chosen, notes = without_untrusted_routes(chosen)
        check_trust(chosen)
        settings = cls(**{name: found.value for name, found in chosen.items()})
        settings.__dict__["origins"] = {name: found.origin for name, found in chosen.items()}
        settings.__dict__["is_address_trusted"] = untrusted_address(chosen) is None
        settings.__dict__["notes"] = tuple(map(printable, (*misspelled_variables(variables), *notes)))
        settings._log_notes()
        return settings

    @property
    def origins(self) -> Mapping[str, str]:
        """Where each setting was found, as text; settings with their default value are absent."""
        return dict(self.__dict__.get("origins", {}))

    @property
    def is_address_trusted(self) -> bool:
        """Whether the user's credentials may be sent to the server.

        Not if a project's file names a server elsewhere.
        """
        return bool(self.__dict__.get("is_address_trusted", True))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about settings that are not used.

        These are misspelled variables, and settings that a project's file may not contain.
        """
        return tuple(self.__dict__.get("notes", ()))

    def _log_notes(self) -> None:
        for note in self.notes:
            if note not in _logged_notes:
                _logged_notes.add(note)
                _log.warning("%s", note)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [
            (name, redact_url(value) if value and name in {"base_url", "proxy"} else value) for name, value in values
        ]

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    __str__ = __repr__


def __getattr__(name: str) -> object:
    """Import `ClientSettings` on first use: no client needs it, and its annotations take time."""
    if name != "ClientSettings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lmdeck._settings import keywords

    return keywords.ClientSettings


def check_setting(name: str, value: object, origin: str) -> None:
    """Check the value of one setting, found at `origin`.

    Raises:
        ConfigurationError: The setting is unknown or the value invalid; the message names setting, value and origin.
    """
    _checked(FoundSetting(name, value, origin))


def _is_overridden_address(name: str, chosen: Mapping[str, object]) -> bool:
    return name == "base_url" or (name in {"host", "port"} and "base_url" in chosen)


def _checked(found: FoundSetting) -> FoundSetting:
    """Return `found` with its value checked and converted."""
    check = CHECKS.get(found.name)
    if check is None:
        hint = did_you_mean(found.name, Settings.__struct_fields__)
        raise ConfigurationError(f"{found.origin}: {found.name!r} is not a setting.", hint=hint)
    try:
        return replace(found, value=check(found.value))
    except ValueError as error:
        shown = repr(_printable_value(found))
        raise ConfigurationError(
            f"The setting {found.name!r} must be {error}, not {shown} (from {found.origin}).",
            hint=f"Correct {found.origin}.",
        ) from None


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown name.

    It has the closest known name, if any, and the list of all names.
    """
    from difflib import get_close_matches  # imported late: needed for errors only

    names = {each.lower(): each for each in known}
    foreign = FOREIGN_NAMES.get(name.lower())
    nearest = [foreign] if foreign in names else get_close_matches(name.lower(), names, n=1)
    question = f"Did you mean {names[nearest[0]]!r}? " if nearest else ""
    return f"{question}Known names: {', '.join(known)}."


def _printable_value(found: FoundSetting) -> object:
    if found.name == "api_token":
        return "***"
    is_address = found.name in {"host", "base_url", "proxy"} and isinstance(found.value, str)
    return redact_url(found.value) if is_address else found.value


assert CHECKS.keys() == {*Settings.__struct_fields__}  # a setting without a check is a bug
