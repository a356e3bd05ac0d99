"""Images for vision models: files, bytes and data URIs become what LM Studio accepts.

LM Studio takes PNG and JPEG as base64 data URIs and nothing else: it fetches no addresses and refuses WebP
(`'url' field must be a base64 encoded image.`, lmstudio-bug-tracker). WebP, GIF and BMP are converted where Pillow is there.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import Any, TypeAlias

from lmdeck._compatibility import Adjustments
from lmdeck._requests.image_conversion import FORMATS, as_png, can_convert
from lmdeck._secret import redact_url
from lmdeck.errors import ConfigurationError, InvalidRequestError

__all__ = ["MAX_IMAGE_BYTES", "Image", "checked_url", "image_kind", "image_part"]

Image: TypeAlias = "str | os.PathLike[str] | bytes"
MAX_IMAGE_BYTES = 50 << 20
IN_URI = "the image in the data URI"
_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM.{12}", re.DOTALL),
}
_DATA_URI = re.compile(r"data:image/[\w.+-]{1,40};base64,(?P<data>[A-Za-z0-9+/=\s]+)", re.IGNORECASE)


def image_part(image: str | os.PathLike[str] | bytes, *, as_given: bool = False) -> dict[str, Any]:
    """Make a content part of an image: a file's path, the file's bytes, or a data URI; `as_given`, any address.

    Raises:
        ConfigurationError: The file cannot be read, is too large, or is no image of a known kind.
        InvalidRequestError: It is a web address, or of a kind that LM Studio does not take and nothing here converts.
    """
    if isinstance(image, (bytes, bytearray)):
        return _part(bytes(image), "the image's bytes")
    text = os.fspath(image)
    if as_given and text.startswith(("data:", "http://", "https://")):
        return {"type": "image_url", "image_url": {"url": text}}
    if text.startswith(("data:", "http://", "https://")):
        return _part(_decoded(text), IN_URI)
    return _part(_read(Path(text)), f"the image {text!r}")


def checked_url(url: str, changes: Adjustments) -> str:
    """Give the data URI of a PNG or JPEG as LM Studio accepts it; one of another kind is converted, which is reported.

    Raises:
        ConfigurationError: It is no base64 data URI of an image.
        InvalidRequestError: It is a web address, or of a kind that LM Studio does not take and nothing here converts.
    """
    data = _decoded(url)
    kind = _checked_kind(data, IN_URI)
    if kind in FORMATS:
        data = as_png(data, kind)
        _checked_kind(data, "the image, as PNG,")
        changes.make("images", f"An image was sent as PNG instead of {FORMATS[kind]}.")
        kind = "png"
    return _uri(data, kind)


def image_kind(data: bytes) -> str | None:
    """Tell by its first bytes what an image is: `"png"`, `"jpeg"`, `"webp"`, `"gif"`, `"bmp"`, or None."""
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)


def _decoded(url: str) -> bytes:
    if not url.lower().startswith("data:"):
        raise InvalidRequestError(
            f"LM Studio does not fetch images from an address such as {redact_url(url)[:200]}.",
            hint="Let lmdeck fetch it, `images=[lm.fetch_image(url)]`, or pass a file's path or bytes.",
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
    return data


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
    return {"type": "image_url", "image_url": {"url": _uri(data, _checked_kind(data, what))}}


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _checked_kind(data: bytes, what: str) -> str:
    what = f"{what[0].upper()}{what[1:]}"
    if len(data) > MAX_IMAGE_BYTES:
        raise ConfigurationError(f"{what} is larger than {MAX_IMAGE_BYTES} bytes.", hint="Scale it down.")
    kind = image_kind(data)
    if kind is None:
        raise ConfigurationError(f"{what} is no PNG, JPEG, WebP, GIF or BMP.", hint="Convert it to PNG or JPEG first.")
    if kind in FORMATS and not can_convert():
        raise InvalidRequestError(
            f"{what} is {FORMATS[kind]}, which LM Studio does not take.",
            hint='Convert it to PNG or JPEG first, or install what converts it: `pip install "lmdeck[images]"`.',
        )
    return kind
