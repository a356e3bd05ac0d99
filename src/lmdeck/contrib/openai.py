"""OpenAI's own client with repaired answers (extra `openai`; openai 3 or newer).

    from lmdeck.contrib.openai import OpenAI

    client = OpenAI()                 # LM Studio on this machine, or where lmdeck's settings say

or, for a client that is made elsewhere: `openai.OpenAI(base_url=…, api_key="lm-studio", http_client=http_client())`.
"""

from __future__ import annotations

from typing import Any, Unpack

from lmdeck.contrib._extras import missing_extra

try:
    import httpx2
    import openai
except ModuleNotFoundError as error:
    raise missing_extra(error, "openai") from error

from lmdeck._requests.base_url import BaseURL
from lmdeck._secret import redact_url
from lmdeck._settings.sources import ROUTE_SETTINGS
from lmdeck.config import ClientSettings, Settings
from lmdeck.contrib.httpx2 import AsyncRepairTransport, RepairTransport
from lmdeck.errors import ConfigurationError

__all__ = ["AsyncOpenAI", "OpenAI", "async_http_client", "http_client"]

NO_TOKEN = "lm-studio"  # OpenAI's client requires a key, LM Studio does not
OWN = frozenset(ClientSettings.__annotations__) - {
    "base_url",
    "timeout",
}  # these two are also keywords of OpenAI's client


def http_client(**settings: Unpack[ClientSettings]) -> httpx2.Client:
    """Return an HTTP client for `openai.OpenAI(http_client=…)`.

    The keywords are those of `LMStudio`.
    """
    return httpx2.Client(transport=RepairTransport(**settings), timeout=None, trust_env=False)


def async_http_client(**settings: Unpack[ClientSettings]) -> httpx2.AsyncClient:
    """Return an HTTP client for `openai.AsyncOpenAI(http_client=…)`.

    The keywords are those of `LMStudio`.
    """
    return httpx2.AsyncClient(transport=AsyncRepairTransport(**settings), timeout=None, trust_env=False)


def OpenAI(**options: Any) -> openai.OpenAI:  # noqa: N802  # OpenAI's own keywords, and its name
    """Return OpenAI's client for LM Studio.

    The keywords are OpenAI's and those of `LMStudio`, which select the server.
    """
    settings, arguments = _split(options)
    return openai.OpenAI(http_client=http_client(**settings), **arguments)


def AsyncOpenAI(**options: Any) -> openai.AsyncOpenAI:  # noqa: N802  # as above
    """Return OpenAI's async client for LM Studio.

    The keywords are OpenAI's and those of `LMStudio`.
    """
    settings, arguments = _split(options)
    return openai.AsyncOpenAI(http_client=async_http_client(**settings), **arguments)


def _split(options: dict[str, Any]) -> tuple[ClientSettings, dict[str, Any]]:
    """Return lmdeck's settings and OpenAI's arguments, including base URL and key."""
    address = {name: value for name, value in options.items() if name in {"base_url", "host", "port"}}
    settings = {name: value for name, value in options.items() if name in OWN}
    arguments = {name: value for name, value in options.items() if name not in OWN | {"base_url"}}
    found = Settings.resolve(settings | {name: _text(value) for name, value in address.items()})
    if not found.is_address_trusted and options.get("api_key") not in (None, NO_TOKEN):
        raise ConfigurationError(
            f"The api_key is not sent to {redact_url(BaseURL.from_settings(found).root)!r}, which a project's file names: its "
            f"author could read the key.",
            hint="If you trust the address, set it yourself: base_url=… or the variable LMDECK_BASE_URL.",
        )
    route = {name: getattr(found, name) for name in ROUTE_SETTINGS}
    token = found.api_token.reveal() if found.api_token else NO_TOKEN
    defaults = {"base_url": f"{BaseURL.from_settings(found).root}/v1", "api_key": token}
    combined: Any = settings | route
    return combined, {**defaults, **arguments}


def _text(value: object) -> object:
    return value if value is None or isinstance(value, int) else str(value)
