"""`Image`: an image for the model, and the detection of its format and size."""

from __future__ import annotations

import os
import re
from typing import TypeAlias

__all__ = ["Image", "ImageSource", "image_kind", "pixel_count"]

_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM.{12}", re.DOTALL),
}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # ITU-T T.81, table B.1: the markers SOF0 to SOF15


class Image:
    """An image: a file path, the bytes of a file, or a data URI.

    PNG or JPEG and, with Pillow, WebP, GIF or BMP.

    A tool's handler returns one to show it to the model; `chat.user(text, images=[…])` accepts an `Image` or its source.
    """

    __slots__ = ("source",)

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        source = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else repr(os.fspath(self.source)[:80])
        return f"<Image {source}>"


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image


def image_kind(data: bytes) -> str | None:
    """Return the format of an image by its signature, or None.

    The formats are `"png"`, `"jpeg"`, `"webp"`, `"gif"` and `"bmp"`.
    """
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)


def pixel_count(data: bytes, kind: str) -> int | None:
    """Return the number of pixels in the header of a PNG or JPEG; None if it cannot be read."""
    if kind == "png":
        width, height = data[16:20], data[20:24]
        return int.from_bytes(width) * int.from_bytes(height) if data[12:16] == b"IHDR" and len(height) == 4 else None
    return _jpeg_pixels(data) if kind == "jpeg" else None


def _jpeg_pixels(data: bytes) -> int | None:
    """Return the number of pixels of a JPEG, or None.

    Segments are skipped up to the frame header: marker, length, precision, height and width (ITU-T T.81, B.2.2).
    """
    offset = 2
    while offset + 9 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(data[offset + 5 : offset + 7]) * int.from_bytes(data[offset + 7 : offset + 9])
        offset += 1 if marker == 0xFF else 2 + max(int.from_bytes(data[offset + 2 : offset + 4]), 2)
    return None
