"""The setting `LMDECK`: the client's keywords in capitals, and the options of the pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from msgspec import Struct

from lmdeck.config import ClientSettings, Secret, Settings, check_setting, did_you_mean
from lmdeck.errors import ConfigurationError
from lmdeck.web.chat_page import EXAMPLES

PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class RateLimit(Struct, frozen=True):
    """The number of requests that one user may send in the value number of seconds."""

    requests: int
    seconds: int


class Configuration(Struct, frozen=True, kw_only=True):
    """The checked value of `LMDECK`: `client` for the clients, the rest for the pages.

    `system` is the system message of the chat page, `tools` the names of its tools (`None`: all registered ones), `max_rounds`
    the limit of its runs. `login_required` and `rate_limit` restrict access; `cache` is the alias of the cache that counts
    requests and stores replies. `heartbeat` is the longest silence of a streamed response, in seconds. `examples` are the
    questions that the start of the page offers.
    """

    client: ClientSettings
    system: str | None = None
    tools: tuple[str, ...] | None = None
    max_rounds: int = 8
    login_required: bool = True
    rate_limit: RateLimit | None = None
    cache: str = "default"
    heartbeat: float = 15.0
    examples: tuple[str, ...] = EXAMPLES


class SettingError(Struct, frozen=True):
    """An error in the setting, and how to correct it."""

    code: str
    message: str
    hint: str


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a non-empty text")
    return value


def _list_of(what: str) -> Callable[[object], tuple[str, ...]]:
    def check(value: object) -> tuple[str, ...]:
        is_list = isinstance(value, list | tuple)
        if not is_list or not all(isinstance(one, str) for one in cast("list[object]", value)):
            raise ValueError(f"a list of {what}")
        return tuple(cast("list[str]", value))

    return check


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _rounds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise ValueError("an integer from 1 to 100")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.05 <= value <= 3600:
        raise ValueError("a number of seconds from 0.05 to 3600")
    return float(value)


def _rate(value: object) -> RateLimit:
    found = re.fullmatch(r"([1-9]\d{0,8})/([smhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a text such as "30/m": requests per s, m, h or d')
    return RateLimit(int(found[1]), PERIODS[found[2]])


OWN: dict[str, Callable[[object], object]] = {
    "SYSTEM": _text,
    "TOOLS": _list_of("tool names"),
    "MAX_ROUNDS": _rounds,
    "LOGIN_REQUIRED": _switch,
    "RATE_LIMIT": _rate,
    "CACHE": _text,
    "HEARTBEAT": _seconds,
    "EXAMPLES": _list_of("questions"),
}
CLIENT = {name.upper(): name for name in Settings.__struct_fields__}
KNOWN = (*CLIENT, *OWN)


@cache
def configuration() -> Configuration:
    """Return the checked value of `settings.LMDECK`.

    It is read once, and again after `setting_changed`.

    Raises:
        ConfigurationError: The setting is invalid; the message names the key and the reason.
    """
    configured = getattr(settings, "LMDECK", {})
    for error in setting_errors(configured):
        raise ConfigurationError(error.message, hint=error.hint)
    client = {CLIENT[key]: value for key, value in configured.items() if key in CLIENT}
    if isinstance(client.get("api_token"), str):
        client["api_token"] = Secret(client["api_token"])  # not shown in error reports
    own = {key.lower(): OWN[key](value) for key, value in configured.items() if key in OWN and value is not None}
    return Configuration(client=cast("ClientSettings", client), **cast("dict[str, Any]", own))


@receiver(setting_changed, dispatch_uid="lmdeck.conf")
def _read_again(*, setting: str, **_: object) -> None:
    if setting == "LMDECK":
        configuration.cache_clear()


def setting_errors(configured: object) -> Iterator[SettingError]:
    """Yield all errors in a value of `LMDECK`."""
    if not isinstance(configured, Mapping):
        yield SettingError(
            "E001",
            f"settings.LMDECK must be a dict, not {type(configured).__name__}.",
            'Write LMDECK = {"BASE_URL": "http://localhost:1234"}.',
        )
        return
    for key, value in configured.items():
        if key not in KNOWN:
            yield SettingError("E002", f"settings.LMDECK has no key {key!r}.", did_you_mean(str(key), KNOWN))
        elif value is not None:
            yield from _value_errors(key, value)


def _value_errors(key: str, value: object) -> Iterator[SettingError]:
    origin = f'settings.LMDECK["{key}"]'
    try:
        if key in CLIENT:
            check_setting(CLIENT[key], value, origin)
        else:
            OWN[key](value)
    except ConfigurationError as error:
        yield SettingError("E003", error.message, error.hint)
    except ValueError as error:
        yield SettingError("E003", f"{origin} must be {error}, not {value!r}.", f"Correct {origin}.")
