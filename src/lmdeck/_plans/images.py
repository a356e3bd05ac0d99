"""The plan that fetches an image from the web; it sends no token and accepts only images."""

from __future__ import annotations

from lmdeck._arguments import checked_text
from lmdeck._pipeline.effects import Open, Plan, Read
from lmdeck._requests.image_urls import (
    REDIRECTS,
    AddressGuard,
    check_head,
    checked_address,
    checked_image,
    private_address,
    redirected,
    too_large,
)
from lmdeck._transport import Response, Timeouts, WireRequest
from lmdeck._version import __version__
from lmdeck.errors import ConfigurationError, TransportError


def fetch_image(url: str, guard: AddressGuard, max_bytes: int, total_timeout: float) -> Plan[bytes]:
    """Fetch an image and follow redirects; the client's token and proxy are not used.

    Raises:
        ConfigurationError: The address is not valid, or a limit is not positive.
        InvalidRequestError: It is in a private network, is not an image, or is too large.
        TransportError: The server does not answer, or not in time.
    """
    if not (max_bytes > 0 and total_timeout > 0):
        raise ConfigurationError(
            "max_bytes and total_timeout must be greater than 0.", hint="Omit them for the defaults."
        )
    url, redirects = checked_address(checked_text(url, "The image URL"), guard), 0
    limits = Timeouts(connect=total_timeout, first_token=total_timeout, idle=total_timeout, total=total_timeout)
    while True:
        try:
            response: Response = yield Open(_request(url, limits))
            try:
                if response.status not in REDIRECTS:
                    return (yield from _read(response, url, max_bytes))
            finally:
                response.close()
        except TransportError as error:
            if guard.refused is not None:
                raise private_address(url, guard) from error
            error.hint = "Check the image's address and the network, or fetch the image yourself and pass its bytes."
            raise
        url = redirected(url, response.headers.get("location", ""), redirects, guard)
        redirects += 1


def _request(url: str, limits: Timeouts) -> WireRequest:
    headers = {"User-Agent": f"lmdeck/{__version__}", "Accept": "image/png, image/jpeg, image/*;q=0.8"}
    return WireRequest(method="GET", url=url, headers=headers, timeouts=limits)


def _read(response: Response, url: str, max_bytes: int) -> Plan[bytes]:
    check_head(url, response.status, response.headers, max_bytes)
    pieces: list[bytes] = []
    size = 0
    while data := (yield Read(response)):
        pieces.append(data)
        size += len(data)
        if size > max_bytes:
            raise too_large(url, max_bytes)
    return checked_image(url, b"".join(pieces))
