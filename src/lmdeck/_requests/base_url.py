"""Where the server is: every form of base URL that people use leads to the right paths."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct

from lmdeck._secret import redact_url
from lmdeck.config import Settings
from lmdeck.errors import ConfigurationError

# What people leave at the end of a base URL: the API's own prefix, or a whole endpoint copied from an example.
_API_TAIL = re.compile(r"/(api/v[01]|v1)(/(chat/completions|completions|embeddings|models|responses|messages|chat))?$")


class BaseURL(Struct, frozen=True):
    """A server's root: scheme, host, port and the prefix of a reverse proxy, if it has one."""

    root: str

    @classmethod
    def from_settings(cls, settings: Settings) -> BaseURL:
        """Read `base_url`, or else `host` and `port`.

        Raises:
            ConfigurationError: The address has no host, or a port that is no number from 1 to 65535.
        """
        if settings.base_url is None:
            host = settings.host.strip("[]")
            return cls(f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}")
        return cls.from_url(settings.base_url)

    @classmethod
    def from_url(cls, url: str) -> BaseURL:
        """Read a base URL; a missing scheme is `http://`, and `/`, `/v1`, `/api/v1` at its end do not matter.

        Raises:
            ConfigurationError: There is no host, or the port is no number from 1 to 65535.
        """
        shown = redact_url(url)
        text = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            reason = "" if "@" in url else f": {error}"  # which quotes a password that was taken for a port
            raise ConfigurationError(f"base_url {shown!r} is no address{reason}.", hint=_EXAMPLE) from None
        if not parts.hostname or port == 0 or parts.netloc.endswith(":"):
            raise ConfigurationError(f"base_url {shown!r} has no host or no valid port.", hint=_EXAMPLE)
        if parts.query or parts.fragment:
            raise ConfigurationError(f"base_url {shown!r} has a query or a fragment.", hint=_EXAMPLE)
        if "@" in parts.netloc:
            raise ConfigurationError(
                f"base_url {shown!r} holds a user name or password.", hint="Pass the token as `api_token` instead."
            )
        path = re.sub(r"/{2,}", "/", parts.path).rstrip("/")
        return cls(f"{parts.scheme.lower()}://{parts.netloc}{_API_TAIL.sub('', path)}")

    def url(self, path: str) -> str:
        """Give the whole URL of an endpoint such as `/v1/chat/completions`."""
        return self.root + path


_EXAMPLE = "Use a form like http://localhost:1234."
