"""Checks of image URLs and of the responses to them.

A URL from an untrusted source may point to a host that only this machine can reach (OWASP: server-side request forgery).
Addresses of this machine and of private networks are therefore refused unless allowed: in the URL itself, as the result of a
DNS lookup, and after a redirect.
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
# Not globally reachable, though `is_global` of some Python versions is True: RFC 8215, 3879, 9637 and 9602.
NOT_PUBLIC = [IPv6Network(network) for network in ("64:ff9b:1::/48", "fec0::/10", "3fff::/20", "5f00::/16")]
ISATAP = {0x00005EFE, 0x02005EFE}  # RFC 5214: the 32 bits before the IPv4 address


class AddressGuard:
    """A check that refuses addresses outside the public internet.

    `refused` is the last refused address.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self.allow_private = allow_private
        self.refused: str | None = None

    def __call__(self, address: str) -> None:
        """Check an IP address just before the connection is made.

        Raises:
            OSError: It is an address of this machine or of a private network.
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
    """Return the IPv4 address embedded in an IPv6 address; others unchanged."""
    if isinstance(ip, IPv4Address):
        return ip
    if any(ip in network for network in EMBEDDING) or int(ip) >> 32 & 0xFFFF_FFFF in ISATAP:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def checked_address(url: str, guard: AddressGuard) -> str:
    """Return a URL that may be requested, without its fragment.

    Raises:
        ConfigurationError: It is not an http:// or https:// URL, or contains a user name.
        InvalidRequestError: It points to this machine or a private network.
    """
    shown = redact_url(url)[:200]
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"The image URL {shown!r} is not valid.", hint=EXAMPLE) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ConfigurationError(f"The image URL {shown!r} cannot be fetched.", hint=EXAMPLE)
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ConfigurationError(f"The image URL {shown!r} has characters that must be escaped.", hint=EXAMPLE)
    try:
        guard(parts.hostname)
    except ValueError:  # a host name: its addresses are checked when the connection is made
        pass
    except OSError as error:
        raise private_address(url, guard) from error
    return parts._replace(path=parts.path or "/", fragment="").geturl()


def private_address(url: str, guard: AddressGuard) -> InvalidRequestError:
    """Return the error for a refused address."""
    return InvalidRequestError(
        f"The image URL {redact_url(url)[:200]} leads to {guard.refused}, which is not on the public internet.",
        hint="If you trust the source of the URL, pass `allow_private=True`.",
    )


def redirected(url: str, location: str, count: int, guard: AddressGuard) -> str:
    """Return the target URL of a redirect.

    Raises:
        ConfigurationError: The target is not a valid URL.
        InvalidRequestError: There were too many redirects, or this one leaves TLS or leads into a private network.
    """
    if count >= MAX_REDIRECTS:
        raise InvalidRequestError(
            f"The image URL {redact_url(url)[:200]} redirects more than {MAX_REDIRECTS} times.", hint=EXAMPLE
        )
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise ConfigurationError(f"{redact_url(url)[:200]} redirects to an invalid URL.", hint=EXAMPLE) from error
    if url.startswith("https://") and target.lower().startswith("http://"):
        raise InvalidRequestError(
            f"The image URL {redact_url(url)[:200]} redirects from https:// to http://.", hint=EXAMPLE
        )
    return checked_address(target, guard)


def check_head(url: str, status: int, headers: Mapping[str, str], max_bytes: int) -> None:
    """Check that the head of a response is that of an image of at most `max_bytes`.

    Raises:
        InvalidRequestError: The status, content type or length is not.
    """
    shown = redact_url(url)[:200]
    if status != 200:
        raise InvalidRequestError(f"{shown} answered {status} instead of an image.", status=status, hint=EXAMPLE)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in PLAIN_TYPES:
        raise InvalidRequestError(f"{shown} is {kind[:80]}, not an image.", hint=EXAMPLE)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise too_large(url, max_bytes)


def too_large(url: str, max_bytes: int) -> InvalidRequestError:
    """Return the error for an image that is larger than allowed."""
    return InvalidRequestError(
        f"The image at {redact_url(url)[:200]} is larger than {max_bytes} bytes.",
        hint="Scale it down, or increase `max_bytes`.",
    )


def checked_image(url: str, data: bytes) -> bytes:
    """Return the bytes of an image, whatever its content type says.

    Raises:
        InvalidRequestError: The bytes are not an image of a supported format.
    """
    if image_kind(data) is None:
        raise InvalidRequestError(
            f"The content of {redact_url(url)[:200]} is not a PNG, JPEG, WebP, GIF or BMP image.", hint=EXAMPLE
        )
    return data


EXAMPLE = "Use the https:// URL of the image itself, such as https://example.com/cat.png; or pass a file or bytes."
