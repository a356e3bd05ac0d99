"""Conversion of a handler's return value into text and images for the model."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import msgspec

from lmdeck._text import replace_lone_surrogates
from lmdeck.images import Image, image_kind

MAX_TEXT = 1 << 20
_BINARY = (bytes, bytearray, memoryview)
_DATA_URI = re.compile(r"data:image/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]+", re.IGNORECASE)


def read_result(result: object) -> tuple[str, list[Image]]:
    """Return a handler's result as text for the model, and the images in it.

    Text is unchanged except for lone surrogates (U+FFFD); bytes become text or base64, everything else JSON. An image is an
    `Image`, its bytes or data URI, an image part of MCP, OpenAI or Anthropic, or an object that Jupyter displays as PNG,
    such as Pillow's. It may be the whole result or occur anywhere in it, where it is replaced with `[image 1]` and so on.

    Raises:
        TypeError: JSON cannot represent the result.
    """
    images: list[Image] = []
    return shortened(_text(result, images)), images


def shortened(text: str) -> str:
    """Return a result's text, truncated at the limit, with a note."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}\n[truncated: the result has {len(text)} characters, of which {MAX_TEXT} are shown]"


def _text(result: object, images: list[Image]) -> str:
    try:
        return _plain_text(_without_images(result, images), images)
    except RecursionError as error:
        raise TypeError(f"a {type(result).__name__} cannot be written as JSON: it contains itself") from error
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(f"a {type(result).__name__} cannot be written as JSON: {error}") from error


def _plain_text(plain: object, images: list[Image]) -> str:
    if isinstance(plain, str):
        return plain
    if isinstance(plain, _BINARY):
        data = bytes(plain)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return base64.b64encode(data).decode()
    if images and isinstance(plain, list) and all(isinstance(item, str) for item in plain):
        return "\n".join(plain)
    return msgspec.json.encode(plain, enc_hook=partial(_plain_or_placeholder, images)).decode()


def _without_images(value: object, images: list[Image]) -> object:
    """Return a result with a placeholder for each image, and append the images to `images`."""
    image = _as_image(value)
    if image is not None:
        return _placeholder(image, images)
    if isinstance(value, str):
        return replace_lone_surrogates(value)  # names of files that are not UTF-8, for example
    if isinstance(value, dict):
        return {
            replace_lone_surrogates(key) if isinstance(key, str) else key: _without_images(item, images)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_images(item, images) for item in value]
    if is_dataclass(value) or isinstance(value, msgspec.Struct):
        plain = partial(_plain_or_placeholder, images)
        return _without_images(msgspec.to_builtins(value, builtin_types=_BINARY, enc_hook=plain), images)
    return value


def _plain_or_placeholder(images: list[Image], value: object) -> object:
    image = _as_image(value)
    return _plain(value) if image is None else _placeholder(image, images)


def _placeholder(image: Image, images: list[Image]) -> str:
    images.append(image)
    return f"[image {len(images)}]"


def _as_image(value: object) -> Image | None:
    """Return the image that a value represents, or None."""
    match value:
        case Image():
            return value
        case bytes() | bytearray() | memoryview():
            data = bytes(value)
            return Image(data) if image_kind(data) and not _is_text(data) else None
        case str():
            return Image(value) if value[:11].lower() == "data:image/" and _DATA_URI.fullmatch(value) else None
        case Mapping():
            return _image_of_part(value)
        case None | bool() | int() | float() | list() | tuple():
            return None
    if getattr(value, "type", None) == "resource":  # MCP's
        resource = getattr(value, "resource", None)
        kind = getattr(resource, "mime_type", None) or getattr(resource, "mimeType", None)
        return _image_of_resource(getattr(resource, "blob", None), kind)
    if getattr(value, "type", None) == "image" and isinstance(encoded := getattr(value, "data", None), str):  # MCP's
        return _from_base64(encoded, getattr(value, "mime_type", None) or getattr(value, "mimeType", None))
    draw = getattr(value, "_repr_png_", None)
    drawn = draw() if callable(draw) and not isinstance(value, type) else None
    return Image(drawn) if isinstance(drawn, bytes) else None


def _image_of_part(part: Mapping[Any, Any]) -> Image | None:
    """Return the image of a content part.

    It is MCP's `image` or embedded `resource`, Anthropic's `image`, or OpenAI's `image_url` or `input_image` with a data URI.
    """
    kind, source, resource = part.get("type"), part.get("source"), part.get("resource")
    if kind == "resource" and isinstance(resource, Mapping):
        return _image_of_resource(resource.get("blob"), resource.get("mimeType"))
    if kind == "image" and isinstance(part.get("data"), str):
        return _from_base64(part["data"], part.get("mimeType"))
    if kind == "image" and isinstance(source, Mapping) and isinstance(source.get("data"), str):
        return _from_base64(source["data"], source.get("media_type"))
    shown = part.get("image_url") if kind in {"image_url", "input_image"} else None
    url = shown.get("url") if isinstance(shown, Mapping) else shown
    return Image(url) if isinstance(url, str) and _DATA_URI.fullmatch(url) else None


def _image_of_resource(blob: object, mime_type: object) -> Image | None:
    is_image = isinstance(mime_type, str) and mime_type.startswith("image/")
    return _from_base64(blob, mime_type) if is_image and isinstance(blob, str) else None


def _from_base64(data: str, mime_type: object) -> Image:
    return Image(f"data:{mime_type if isinstance(mime_type, str) else 'image/png'};base64,{data}")


def _is_text(data: bytes) -> bool:
    """Whether bytes that begin like an image are text, such as “BMW” or “GIF89a is a format”."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)  # pydantic's
    if callable(dump):
        return dump(mode="json")
    if hasattr(value, "__fspath__"):
        return str(value)
    if isinstance(value, (complex, Exception)):
        return str(value)
    if hasattr(value, "tolist"):  # arrays
        return value.tolist()
    raise NotImplementedError(f"the type {type(value).__name__} is not supported")
