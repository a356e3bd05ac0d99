"""Images for vision models as content parts: from files, bytes and data URIs.

LM Studio accepts only PNG and JPEG as base64 data URIs: it does not fetch URLs and refuses WebP
(`'url' field must be a base64 encoded image.`, lmstudio-bug-tracker). WebP, GIF and BMP are converted if Pillow is installed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmdeck._arguments import checked_list, wrong_type
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._late_patterns import late_pattern
from lmdeck._limits import MAX_IMAGE_BYTES
from lmdeck._requests.image_conversion import FORMATS, as_png, can_convert, scaled_down
from lmdeck._secret import redact_url
from lmdeck.errors import ConfigurationError, InvalidRequestError
from lmdeck.images import Image, ImageSource, image_kind, pixel_count

MAX_PIXELS = 5120 * 5120  # LM Studio refuses more, even though it scales images: lmstudio-bug-tracker #2003
IN_URI = "the image in the data URI"
_DATA_URI = late_pattern(r"data:image/[\w.+-]{1,40};base64,(?P<data>[A-Za-z0-9+/=\s]+)", re.IGNORECASE)


def checked_images(images: Iterable[ImageSource]) -> list[ImageSource]:
    """Return the images of an argument as a list.

    Raises:
        ConfigurationError: It is a single image, or not iterable.
    """
    return checked_list(images, "images", 'Pass a list: `images=["photo.png"]`.')


def image_part(image: ImageSource, *, unchanged: bool = False) -> dict[str, Any]:
    """Return the content part of an image: a path, bytes or a data URI.

    With `unchanged`, a URL of any kind is also allowed, and not checked.

    Raises:
        ConfigurationError: The file cannot be read, is too large, or is not an image of a known format; or it is no file.
        InvalidRequestError: It is a URL, or LM Studio does not accept its format or size and Pillow is not installed.
    """
    image = image.source if isinstance(image, Image) else image
    if isinstance(image, (bytes, bytearray)):
        return _part(bytes(image), "the image passed as bytes")
    if not isinstance(image, (str, os.PathLike)):
        raise wrong_type("An image", "a path, bytes or a data URI", image, "Pass the path or the bytes of a file.")
    text = os.fspath(image)
    if unchanged and text.startswith(("data:", "http://", "https://")):
        return {"type": "image_url", "image_url": {"url": text}}
    if text.startswith(("data:", "http://", "https://")):
        return _part(_decoded(text), IN_URI)
    return _part(_read(Path(text)), f"the image {text!r}")


def checked_url(url: str, fixes: CompatibilityFixes) -> str:
    """Return the data URI of a PNG or JPEG that LM Studio accepts.

    Conversion and downscaling are recorded in `fixes`.

    Raises:
        ConfigurationError: It is not a base64 data URI of an image.
        InvalidRequestError: It is a URL, or LM Studio does not accept its format or size and Pillow is not installed.
    """
    data = _decoded(url)
    kind = _checked_kind(data, IN_URI)
    if kind in FORMATS:
        data = as_png(data, kind)
        _checked_kind(data, "the image, as PNG,")
        fixes.apply("images", f"An image was sent as PNG instead of {FORMATS[kind]}.")
        kind = "png"
    pixels = pixel_count(data, kind) or 0
    if pixels > MAX_PIXELS:
        data = scaled_down(data, kind, MAX_PIXELS)
        fixes.apply(
            "images", f"An image of {pixels} pixels was scaled down to the {MAX_PIXELS} that LM Studio accepts."
        )
    return _uri(data, kind)


def _decoded(url: str) -> bytes:
    if not url.lower().startswith("data:"):
        raise InvalidRequestError(
            f"LM Studio does not fetch images from a URL such as {redact_url(url)[:200]}.",
            hint="Let lmdeck fetch it with `images=[lm.fetch_image(url)]`, or pass the path or bytes of a file.",
        )
    match = _DATA_URI.fullmatch(url)
    try:
        text = "".join(match["data"].split()).rstrip("=") if match else ""
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # many encoders leave the padding out
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
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
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
        raise ConfigurationError(
            f"{what} is not a PNG, JPEG, WebP, GIF or BMP image.", hint="Convert it to PNG or JPEG first."
        )
    _check_pixels(data, kind, what)
    if kind in FORMATS and not can_convert():
        raise InvalidRequestError(
            f"{what} is {FORMATS[kind]}, which LM Studio does not accept.",
            hint='Convert it to PNG or JPEG first, or install Pillow: `pip install "lmdeck[images]"`.',
        )
    return kind


def _check_pixels(data: bytes, kind: str, what: str) -> None:
    pixels = pixel_count(data, kind) or 0
    if pixels > MAX_PIXELS and not can_convert():
        raise InvalidRequestError(
            f"{what} has {pixels} pixels; LM Studio accepts at most {MAX_PIXELS}.",
            hint='Scale it down to 5120 × 5120, or install Pillow: `pip install "lmdeck[images]"`.',
        )
