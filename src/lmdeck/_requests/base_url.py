"""The base URL of the server, in every common form."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct

from lmdeck._late_patterns import late_pattern
from lmdeck._secret import redact_url
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError

# Suffixes to remove from a base URL: the prefix of the API, or an endpoint copied from an example.
_API_TAIL = late_pattern(
    r"/(api/v[01]|v1)(/(chat/completions|completions|embeddings|models|responses|messages|chat))?$", re.IGNORECASE
)


class BaseURL(Struct, frozen=True):
    """The root URL of a server: scheme, host, port, and the path prefix of a reverse proxy."""

    root: str

    @classmethod
    def from_settings(cls, settings: Settings) -> BaseURL:
        """Read `base_url` or, without it, `host` and `port`.

        Raises:
            ConfigurationError: The URL has no host, or a port that is not a number from 1 to 65535.
        """
        if settings.base_url is None:
            host = settings.host.strip("[]")
            return cls(f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}")
        return cls.from_url(settings.base_url)

    @classmethod
    def from_url(cls, url: str) -> BaseURL:
        """Read a base URL.

        The default scheme is `http://`, and a trailing `/`, `/v1` or `/api/v1` is removed.

        Raises:
            ConfigurationError: The URL has no host, or a port that is not a number from 1 to 65535.
        """
        shown = redact_url(url)
        text = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            reason = "" if "@" in url else f": {error}"  # the error may quote a password that was read as a port
            raise ConfigurationError(f"base_url {shown!r} is not a valid URL{reason}.", hint=_EXAMPLE) from None
        if not parts.hostname or port == 0 or parts.netloc.endswith(":"):
            raise ConfigurationError(f"base_url {shown!r} has no host or no valid port.", hint=_EXAMPLE)
        if parts.query or parts.fragment:
            raise ConfigurationError(f"base_url {shown!r} has a query or a fragment.", hint=_EXAMPLE)
        if "@" in parts.netloc:
            raise ConfigurationError(
                f"base_url {shown!r} contains a user name or password.", hint="Pass the token as `api_token` instead."
            )
        return cls(f"{parts.scheme.lower()}://{parts.netloc}{_prefix_in(parts.path)}")


def _prefix_in(path: str) -> str:
    """Return the path prefix of a reverse proxy, without the API's own path."""
    return _API_TAIL.sub("", re.sub(r"/{2,}", "/", path).rstrip("/")) if path else ""


_EXAMPLE = "Use a URL like http://localhost:1234."
