"""Which requests a local server answers: those of its own pages and of programs, and no other page's.

A browser lets any page of the web send requests to this machine. Three things tell them apart. The `Host` header names the
server as the page knows it, so a foreign name that was made to point here (DNS rebinding) is not in the list of allowed ones.
`Sec-Fetch-Site` and `Origin` say where the page came from (Fetch, sections 3.1 and 3.2; W3C Fetch Metadata). And JSON as the
media type cannot be sent by a form, nor by a script of another site without asking first (Fetch, section 2.2.2).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from msgspec import Struct

__all__ = [
    "LOOPBACK",
    "PAGE_HEADERS",
    "AllowedHosts",
    "Refused",
    "content_security_policy",
    "is_loopback",
    "refuse_request",
]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
TEST_CLIENT = "testserver"
"""What the test clients of Starlette and Django call the server. A name without a dot cannot be that of a foreign page."""


class Refused(Struct, frozen=True):
    """Why a request is not answered, and what its sender can do."""

    status: int
    message: str
    hint: str


class AllowedHosts(Struct, frozen=True):
    """The names by which a server may be asked: `names` (one that begins with a dot stands for all below it), and loopback.

    With `any_local`, addresses and names without a dot are allowed as well, which no page of the web can have.
    """

    names: frozenset[str] = frozenset()
    any_local: bool = False

    @classmethod
    def of(cls, names: Iterable[str] = (), listening_on: str = "127.0.0.1") -> AllowedHosts:
        """Allow `names`, and where a server listens beyond loopback, what its own network calls it."""
        wanted = frozenset(name.lower().removeprefix("*") for name in names)
        return cls(names=wanted, any_local=not is_loopback(listening_on.strip("[]").lower()))

    def allows(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, names this server."""
        name = _hostname(host)
        return is_loopback(name) or name == TEST_CLIENT or self.names_it(name) or (self.any_local and _is_local(name))

    def names_it(self, host: str) -> bool:
        """Whether a host is one of `names`."""
        name = _hostname(host)
        return bool(name) and any(
            each in {"", name} or (each.startswith(".") and name.endswith(each)) for each in self.names
        )


LOOPBACK = AllowedHosts()


def refuse_request(
    method: str, headers: Mapping[str, str], hosts: AllowedHosts = LOOPBACK, *, needs_json: bool = True
) -> Refused | None:
    """Return why a request is refused; None if it is not. `headers` are found by their lower-case names.

    With `needs_json`, the body of a request that changes something has to be JSON.
    """
    host = headers.get("host", "")
    if host and not hosts.allows(host):
        return Refused(
            400, f"This server is not called {host[:100]!r}.", "Ask for localhost, or add the name to `allowed_hosts`."
        )
    if method.upper() in SAFE_METHODS:
        return None
    if not _is_same_site(headers, host, hosts):
        return Refused(403, "A page of another site sent this request.", "Send it from this site's own page.")
    if needs_json and _has_body(headers) and not _is_json(headers.get("content-type", "")):
        return Refused(415, "The request is not JSON.", "Send it with the header `Content-Type: application/json`.")
    return None


def _is_same_site(headers: Mapping[str, str], host: str, hosts: AllowedHosts) -> bool:
    """Whether a request comes from a page of this server, or from a program, which sends neither header."""
    if headers.get("sec-fetch-site", "none").lower() not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    _, mark, place = origin.lower().partition("://")
    return bool(mark) and (_without_default_port(place) == _without_default_port(host.lower()) or hosts.names_it(place))


def _has_body(headers: Mapping[str, str]) -> bool:
    """Whether a request has a body, by its framing (RFC 9112, section 6), or by a type without framing, as in HTTP/2."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers or "content-type" in headers


def _without_default_port(place: str) -> str:
    return place.removesuffix(":80").removesuffix(":443")


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == "application/json"


def _hostname(host: str) -> str:
    """Return the name in a `Host` header, without port, brackets and the root's dot."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    name, _, port = text.rpartition(":")
    return (name if name and ":" not in name and port.isdigit() else text).removesuffix(".")


def is_loopback(name: str) -> bool:
    """Whether a host, a name or an address, is this machine itself."""
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


def content_security_policy(static_origin: str = "", *, framed: bool = False) -> str:
    """Return the policy of the chat page: script and style from itself or `static_origin` alone, and no frame around it.

    With `framed`, pages of the same origin may frame it.
    """
    own = f"'self' {static_origin}".strip()
    return (
        f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; img-src 'self' data:; "
        f"base-uri 'none'; form-action 'self'; frame-ancestors '{'self' if framed else 'none'}'"
    )


PAGE_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer of a page's addresses says, whichever framework sends it."""
