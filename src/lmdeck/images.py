"""`Image`: a picture for the model, given by the user or returned by a tool; and what its first bytes say of it."""

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
    """An image: a file's path, the file's bytes, or a data URI; PNG and JPEG, and with Pillow WebP, GIF and BMP.

    A tool's handler returns one to show it to the model; `chat.user(text, images=[…])` takes one as it takes its source.
    """

    __slots__ = ("source",)

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        shown = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else repr(os.fspath(self.source)[:80])
        return f"<Image {shown}>"


ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Image


def image_kind(data: bytes) -> str | None:
    """Return what an image is by its first bytes: `"png"`, `"jpeg"`, `"webp"`, `"gif"`, `"bmp"`, or None."""
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)


def pixel_count(data: bytes, kind: str) -> int | None:
    """Return how many pixels a PNG or JPEG has, by its header; None where that does not say."""
    if kind == "png":
        width, height = data[16:20], data[20:24]
        return int.from_bytes(width) * int.from_bytes(height) if data[12:16] == b"IHDR" and len(height) == 4 else None
    return _jpeg_pixels(data) if kind == "jpeg" else None


def _jpeg_pixels(data: bytes) -> int | None:
    """Walk along the segments to the frame header: marker, length, precision, height and width (ITU-T T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            return int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    return None
