"""Request checks of a local server: it answers its own pages and programs only.

A browser lets any web page send requests to this machine. Three checks detect them. The `Host` header must be an allowed name;
a foreign name that resolves to this machine (DNS rebinding) is not. `Sec-Fetch-Site` and `Origin` identify the site of the
page (Fetch, sections 3.1 and 3.2; W3C Fetch Metadata). And a form cannot send JSON as the media type, nor can a script of
another site without a preflight request (Fetch, section 2.2.2).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UNSUPPORTED_METHODS = frozenset({"CONNECT", "TRACE"})
"""Methods of proxies; TRACE would show a page the headers of its own request (RFC 9110, sections 9.3.6 and 9.3.8)."""

PAGE_ORIGIN = frozenset({"origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"})
"""Headers that identify the page of a request; a proxy that has checked them sends the request as its own."""

TEST_CLIENT = "testserver"
"""The host name that the test clients of Starlette and Django use.

A foreign page's name always has a dot.
"""


class RefusedRequest(Struct, frozen=True):
    """The status, message and hint of a refused request."""

    status: int
    message: str
    hint: str


class AllowedHosts(Struct, frozen=True):
    """The host names that a server answers to: `names`, and loopback.

    A name that starts with a dot includes all its subdomains. With `any_local`, IP addresses and names without a dot are
    allowed as well; no public web page has such a name.
    """

    names: frozenset[str] = frozenset()
    any_local: bool = False

    @classmethod
    def of(cls, names: Iterable[str] = (), listening_on: str = "127.0.0.1") -> AllowedHosts:
        """Allow `names`, and any local name if the server listens on more than loopback."""
        wanted = frozenset(name.lower().removeprefix("*") for name in names)
        return cls(names=wanted, any_local=not is_loopback(listening_on.strip("[]").lower()))

    def allows(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, is allowed."""
        name = _hostname(host)
        return is_loopback(name) or name == TEST_CLIENT or self.includes(name) or (self.any_local and _is_local(name))

    def includes(self, host: str) -> bool:
        """Whether a host is one of `names`."""
        name = _hostname(host)
        return bool(name) and any(
            each in {"", name} or (each.startswith(".") and name.endswith(each)) for each in self.names
        )


LOOPBACK = AllowedHosts()


def refuse_request(
    method: str, headers: Mapping[str, str], hosts: AllowedHosts = LOOPBACK, *, needs_json: bool = True
) -> RefusedRequest | None:
    """Return the refusal of a request, or None if it is accepted.

    `headers` are in lower case, repeated ones joined (`joined_headers`): a second value then makes either invalid. With
    `needs_json`, the body of a request with an unsafe method must be JSON.
    """
    host = headers.get("host")
    if host is not None and not hosts.allows(host):
        return RefusedRequest(
            400, f"The host {host[:100]!r} is not allowed.", "Use localhost, or add the name to `allowed_hosts`."
        )
    if method.upper() in UNSUPPORTED_METHODS:
        return RefusedRequest(405, f"The method {method.upper()} is not supported.", "Use GET or POST.")
    if method.upper() in SAFE_METHODS:
        return None
    if not _is_same_site(headers, host or "", hosts):
        return RefusedRequest(403, "A page of another site sent this request.", "Send it from this site's own page.")
    if needs_json and _has_body(headers) and not _is_json(headers.get("content-type", "")):
        return RefusedRequest(
            415, "The request is not JSON.", "Send it with the header `Content-Type: application/json`."
        )
    return None


def _is_same_site(headers: Mapping[str, str], host: str, hosts: AllowedHosts) -> bool:
    """Whether a request comes from a page of this server, or from a program.

    A program sends neither header.
    """
    if headers.get("sec-fetch-site", "none").lower() not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    _, mark, place = origin.lower().partition("://")
    return bool(mark) and (_without_default_port(place) == _without_default_port(host.lower()) or hosts.includes(place))


def _has_body(headers: Mapping[str, str]) -> bool:
    """Whether a request has a body: by its framing (RFC 9112, section 6), or its media type.

    HTTP/2 has only the latter.
    """
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers or "content-type" in headers


def _without_default_port(place: str) -> str:
    return place.removesuffix(":80").removesuffix(":443")


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == "application/json"


@lru_cache(maxsize=256)
def _hostname(host: str) -> str:
    """Return the name in a `Host` header without port, brackets and final dot."""
    text = host.strip().lower()
    if bracketed := re.fullmatch(r"\[([^\]]*)\](:\d*)?", text):
        return bracketed[1]
    name, _, port = text.rpartition(":")
    return (name if name and ":" not in name and port.isdigit() else text).removesuffix(".")


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether a host name or address is loopback."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_local(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and "." not in name
    return True
