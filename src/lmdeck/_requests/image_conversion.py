"""Conversion of WebP, GIF and BMP to PNG, and downscaling, with Pillow.

Pillow, whose decoders receive security fixes, is an optional dependency (extra `images`) and imported with the first image that
needs it. Only the decoder of the detected format is enabled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from math import sqrt
from typing import TYPE_CHECKING

from lmdeck.errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = {"webp": "WebP", "gif": "GIF", "bmp": "BMP"}
MAX_PIXELS = 89_478_485  # Pillow's limit, 358 MB in memory: a small file can decompress to more than fits
MAX_SCALE = 4  # times that many, if the decoder scales down
HINT = "Convert it to PNG or JPEG first, and scale it down."
SCALABLE = {"L", "LA", "RGB", "RGBA"}  # modes whose values can be interpolated


def can_convert() -> bool:
    """Whether Pillow is installed."""
    return find_spec("PIL") is not None


def as_png(data: bytes, kind: str) -> bytes:
    """Return an image of one of `FORMATS` as PNG; of an animation, the first frame.

    Raises:
        InvalidRequestError: The image cannot be decoded, or has too many pixels.
    """
    with _opened(data, kind) as image:
        _check_size(image, FORMATS[kind])
        return _png(image)


def scaled_down(data: bytes, kind: str, max_pixels: int) -> bytes:
    """Return a PNG or JPEG scaled down to at most `max_pixels` pixels, in the same format.

    Raises:
        InvalidRequestError: The image cannot be decoded, or has too many pixels to be decoded.
    """
    with _opened(data, kind) as image:
        factor = sqrt(max_pixels / (image.width * image.height))
        size = max(int(image.width * factor), 1), max(int(image.height * factor), 1)
        _draft(image, size)
        _check_size(image, kind.upper())
        size = min(size[0], image.width), min(size[1], image.height)
        if image.mode not in SCALABLE:
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        written = BytesIO()
        metadata = {name: image.info[name] for name in ("exif", "icc_profile") if image.info.get(name)}
        image.resize(size).save(written, kind.upper(), quality=90, **metadata)
        return written.getvalue()


@contextmanager
def _opened(data: bytes, kind: str) -> Iterator[Image.Image]:
    """Open an image, and translate Pillow's errors.

    Raises:
        InvalidRequestError: The image cannot be decoded, or has too many pixels.
    """
    from PIL import Image  # imported late: most images do not need conversion

    name = FORMATS.get(kind, kind.upper())
    try:
        with _open_jpeg(data) if kind == "jpeg" else Image.open(BytesIO(data), formats=[kind.upper()]) as image:
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_many_pixels(name) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError, OverflowError) as error:
        raise InvalidRequestError(f"The {name} image cannot be decoded: {error}.", hint=HINT) from error


def _open_jpeg(data: bytes) -> Image.Image:
    """Open a JPEG; `Image.open` would refuse one that the decoder can scale down."""
    from PIL.JpegImagePlugin import JpegImageFile

    return JpegImageFile(BytesIO(data))


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """Let the decoder of a JPEG scale it down, but not below a size.

    It can decode at half, a quarter or an eighth. The image is at least halved if it would have too many pixels. A progressive
    JPEG is held in memory as a whole.
    """
    pixels = image.width * image.height
    if pixels > MAX_PIXELS and (image.info.get("progressive") or pixels > MAX_SCALE * MAX_PIXELS):
        return
    if pixels > MAX_PIXELS:
        size = min(size[0], image.width // 2), min(size[1], image.height // 2)
    image.draft(None, size)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(name)


def _too_many_pixels(name: str) -> InvalidRequestError:
    return InvalidRequestError(f"The {name} image has more than {MAX_PIXELS} pixels.", hint="Scale it down first.")


def _png(image: Image.Image) -> bytes:
    if image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
