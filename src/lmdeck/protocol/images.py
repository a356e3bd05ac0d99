"""Images for vision models: files, bytes and data URIs become what LM Studio accepts.

LM Studio takes PNG and JPEG as base64 data URIs and nothing else: it fetches no addresses and refuses WebP
(`'url' field must be a base64 encoded image.`, lmstudio-bug-tracker).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import Any, TypeAlias

from lmdeck.errors import ConfigurationError, InvalidRequestError
from lmdeck.secret import redact_url

__all__ = ["MAX_IMAGE_BYTES", "Image", "checked_url", "image_part"]

Image: TypeAlias = "str | os.PathLike[str] | bytes"
MAX_IMAGE_BYTES = 50 << 20
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}
_DATA_URI = re.compile(r"data:image/[\w.+-]{1,40};base64,(?P<data>[A-Za-z0-9+/=\s]+)", re.IGNORECASE)


def image_part(image: str | os.PathLike[str] | bytes) -> dict[str, Any]:
    """Make a content part of an image: a file's path, the file's bytes, or a data URI.

    Raises:
        ConfigurationError: The file cannot be read, is too large, or is neither PNG nor JPEG.
        InvalidRequestError: It is a web address, which LM Studio does not fetch.
    """
    if isinstance(image, (bytes, bytearray)):
        return _part(bytes(image), "the image's bytes")
    text = os.fspath(image)
    if text.startswith(("data:", "http://", "https://")):
        return {"type": "image_url", "image_url": {"url": checked_url(text)}}
    return _part(_read(Path(text)), f"the image {text!r}")


def checked_url(url: str) -> str:
    """Give the data URI of a PNG or JPEG as LM Studio accepts it.

    Raises:
        ConfigurationError: It is no base64 data URI of a PNG or JPEG.
        InvalidRequestError: It is a web address, which LM Studio does not fetch.
    """
    if not url.lower().startswith("data:"):
        raise InvalidRequestError(
            f"LM Studio does not fetch images from an address such as {redact_url(url)[:200]}.",
            hint="Download the image and pass its path or bytes.",
        )
    match = _DATA_URI.fullmatch(url)
    try:
        data = base64.b64decode("".join(match["data"].split()), validate=True) if match else b""
    except binascii.Error:
        data = b""
    if not data:
        raise ConfigurationError(
            "An image's data URI is not base64.", hint="Use data:image/png;base64,… or pass a file."
        )
    return str(_part(data, "the image in the data URI")["image_url"]["url"])


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a null byte is a value's error
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"The image {str(path)!r} cannot be read: {reason}.", hint="Check the path."
        ) from error


def _part(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_IMAGE_BYTES:
        raise ConfigurationError(
            f"{what[0].upper()}{what[1:]} is larger than {MAX_IMAGE_BYTES} bytes.", hint="Scale it down."
        )
    kind = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)
    if kind is None:
        found = "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "no PNG and no JPEG"
        raise ConfigurationError(f"{what[0].upper()}{what[1:]} is {found}.", hint="Convert it to PNG or JPEG first.")
    encoded = base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{encoded}"}}
