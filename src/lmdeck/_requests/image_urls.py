"""Which addresses an image may be fetched from, and which answers are taken for one.

Whoever names a web address for a server to fetch may mean one that only that server can reach (OWASP: server-side request
forgery). So an address of this machine or of a private network is refused, unless it is allowed, wherever it turns up: in the
address itself, behind a name, after a redirect.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin, urlsplit

from lmdeck._secret import redact_url
from lmdeck.errors import ConfigurationError, InvalidRequestError
from lmdeck.images import image_kind

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
PLAIN_TYPES = ("", "application/octet-stream", "binary/octet-stream")
# IPv6 addresses whose last 32 bits are the IPv4 address that is reached: RFC 4291 (compatible, mapped), 2765 and 6052.
EMBEDDING = [IPv6Network(f"{prefix}/96") for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::")]
# Not reached over the internet, though not every Python's `is_global` says so: RFC 8215, 3879, 9637 and 9602.
NOT_PUBLIC = [IPv6Network(network) for network in ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")]
ISATAP = {0x00005EFE, 0x02005EFE}  # RFC 5214: what stands before the IPv4 address


class AddressGuard:
    """Refuse a socket's address that is not on the public internet; `refused` keeps the one that was."""

    def __init__(self, *, allow_private: bool = False) -> None:
        self.allow_private = allow_private
        self.refused: str | None = None

    def __call__(self, address: str) -> None:
        """Check an IP address just before it is connected to.

        Raises:
            OSError: It is of this machine or a private network.
        """
        if self.allow_private or _is_public(address):
            return
        self.refused = address
        raise OSError(f"{address} is not on the public internet")


def _is_public(address: str) -> bool:
    ip = _innermost(ip_address(address))
    is_listed = isinstance(ip, IPv6Address) and any(ip in network for network in NOT_PUBLIC)
    return ip.is_global and not ip.is_multicast and not is_listed


def _innermost(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 one only wraps."""
    if isinstance(ip, IPv4Address):
        return ip
    if any(ip in network for network in EMBEDDING) or int(ip) >> 32 & 0xFFFF_FFFF in ISATAP:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def checked_address(url: str, guard: AddressGuard) -> str:
    """Give an address that may be asked.

    Raises:
        ConfigurationError: It is no http:// or https:// address, or holds a user name.
        InvalidRequestError: It is of this machine or a private network.
    """
    shown = redact_url(url)[:200]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"The image's address {shown!r} is none.", hint=EXAMPLE) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(f"The image's address {shown!r} cannot be fetched.", hint=EXAMPLE)
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ConfigurationError(f"The image's address {shown!r} has characters to be escaped.", hint=EXAMPLE)
    try:
        guard(parts.hostname)
    except ValueError:  # a name: its addresses are checked when it is connected to
        pass
    except OSError as error:
        raise private_address(url, guard) from error
    return parts._replace(path=parts.path or "/", fragment="").geturl()


def private_address(url: str, guard: AddressGuard) -> InvalidRequestError:
    """Make the error of an address that was refused."""
    return InvalidRequestError(
        f"The image's address {redact_url(url)[:200]} leads to {guard.refused}, which is not on the public internet.",
        hint="If you trust whoever gave the address, pass `allow_private=True`.",
    )


def redirected(url: str, location: str, count: int, guard: AddressGuard) -> str:
    """Give where a redirect leads.

    Raises:
        ConfigurationError: It leads nowhere.
        InvalidRequestError: It is one too many, gives TLS up, or leads into a private network.
    """
    if count >= MAX_REDIRECTS:
        raise InvalidRequestError(
            f"The image's address {redact_url(url)[:200]} redirects more than {MAX_REDIRECTS} times.", hint=EXAMPLE
        )
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise ConfigurationError(f"{redact_url(url)[:200]} redirects to no address.", hint=EXAMPLE) from error
    if url.startswith("https://") and target.lower().startswith("http://"):
        raise InvalidRequestError(
            f"The image's address {redact_url(url)[:200]} redirects from https:// to http://.", hint=EXAMPLE
        )
    return checked_address(target, guard)


def check_head(url: str, status: int, headers: Mapping[str, str], max_bytes: int) -> None:
    """Check whether an answer can be an image of the size that is allowed.

    Raises:
        InvalidRequestError: It cannot.
    """
    shown = redact_url(url)[:200]
    if status != 200:
        raise InvalidRequestError(f"{shown} answered {status} instead of an image.", status=status, hint=EXAMPLE)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in PLAIN_TYPES:
        raise InvalidRequestError(f"{shown} is {kind[:80]}, no image.", hint=EXAMPLE)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise too_large(url, max_bytes)


def too_large(url: str, max_bytes: int) -> InvalidRequestError:
    """Make the error of an image that is larger than allowed."""
    return InvalidRequestError(
        f"The image at {redact_url(url)[:200]} is larger than {max_bytes} bytes.",
        hint="Scale it down, or raise `max_bytes`.",
    )


def checked_image(url: str, data: bytes) -> bytes:
    """Give the bytes of an image, whatever its content type said.

    Raises:
        InvalidRequestError: They are of no known kind.
    """
    if image_kind(data) is None:
        raise InvalidRequestError(
            f"What {redact_url(url)[:200]} holds is no PNG, JPEG, WebP, GIF or BMP.", hint=EXAMPLE
        )
    return data


EXAMPLE = "Use the https:// address of the image itself, such as https://example.com/cat.png; or pass a file or bytes."
