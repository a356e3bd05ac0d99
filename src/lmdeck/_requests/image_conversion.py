"""WebP, GIF and BMP as PNG, by Pillow: it decodes them all, is kept up with security fixes, and needs nothing else.

It is an extra (`images`) and imported with the first image that needs it. Only the decoders of these three kinds are used.
"""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

from lmdeck.errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "MAX_PIXELS", "as_png", "can_convert"]

FORMATS = {"webp": "WebP", "gif": "GIF", "bmp": "BMP"}
MAX_PIXELS = 50_000_000  # a small file can unpack to more than the memory holds
HINT = "Convert it to PNG or JPEG first, and scale it down."


def can_convert() -> bool:
    """Tell whether Pillow is there."""
    return find_spec("PIL") is not None


def as_png(data: bytes, kind: str) -> bytes:
    """Give an image of one of `FORMATS` as PNG; of an animation, its first frame.

    Raises:
        InvalidRequestError: It cannot be decoded, or has too many pixels.
    """
    from PIL import Image  # here, because most images need it not

    name = FORMATS[kind]
    try:
        with Image.open(BytesIO(data), formats=[kind.upper()]) as image:
            _check_size(image, name)
            return _png(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many_pixels(name) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError, OverflowError) as error:
        raise InvalidRequestError(f"The {name} image cannot be decoded: {error}.", hint=HINT) from error


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)


def _too_many_pixels(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"The {name} image has more than {MAX_PIXELS} pixels.", hint=HINT)


def _png(image: Image.Image) -> bytes:
    if image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
