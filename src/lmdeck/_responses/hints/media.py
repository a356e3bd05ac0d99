"""Hints about images, audio and video in a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmdeck._responses.any_pattern import AnyPattern
from lmdeck._responses.error_expressions import MEDIA, UNFIT_IMAGE, UNREAD_MEDIA
from lmdeck._responses.hints.server import UNEXPLAINED
from lmdeck.errors import InvalidRequestError

# The server or the model does not accept these images, this audio or video.
REFUSED = (
    (
        AnyPattern(
            r"must be (a )?base64",
            r"\burls?\b.{0,20}\bnot (supported|allowed)\b.{0,40}",
            r"\b(provide|use|send)( it as| a)? base64",
        ),
        "Pass images as file, bytes or data URI; the server does not fetch URLs.",
    ),
    (
        AnyPattern(
            r"unsupported image", r"image (format|type).{0,60}\bnot supported", r"\b(webp|gif|heic|avif|bmp|tiff|svg)\b"
        ),
        "Send the image as PNG or JPEG.",
    ),
    (
        AnyPattern(
            r"\b(audio|video)\b.{0,40}\bnot? (supported|enabled|available)", r"\bnot support(ed)? (audio|video)\b"
        ),
        "Choose a model that accepts audio or video, or leave it out; llama.cpp needs the model's `--mmproj` file for it.",
    ),
    (
        AnyPattern(
            r"\bmmproj\b",
            rf"\b{MEDIA}\b.{{0,40}}\b(not|only) (supported|enabled|available|loaded|installed|configured)",
            rf"\bnot support(ed)? {MEDIA}",
            r"required for image input",
            rf"\bunsupported (content|multimodal)\b.{{0,20}}\b{MEDIA}\b",
            r"\bonly '?text\b.{0,40}\b(supported|accepted|allowed)",
            r"at most 0 (image|audio|video)",
            r"not a (multimodal|vision)",
            r"not compiled for multimodal",
        ),
        "Choose a vision model, which accepts images: `lmdeck models` shows those as `vlm`; or remove the images.",
    ),
    (
        AnyPattern(r"vision\.imageResizeSettings"),
        "Update LM Studio: this version fails on images (bug tracker #1132).",
    ),
    (
        AnyPattern(*UNFIT_IMAGE),
        "Send a larger image, or one whose sides differ less: the model cannot divide this one into patches.",
    ),
    (
        AnyPattern(r"\bpixels?\b", r"image.{0,40}\b(too (large|big)|exceeds?)\b"),
        "Send a smaller image: LM Studio accepts up to 5120 × 5120 pixels (bug tracker #2003).",
    ),
    (
        AnyPattern(r"image features and image tokens"),
        "The model's template has no place for images: update LM Studio and its runtime, or choose another vision model.",
    ),
    (
        AnyPattern(r"at most \d+ (image|audio|video)"),
        "Send fewer images in one request, or start the server with a higher limit.",
    ),
)
UNREADABLE = (
    AnyPattern(UNREAD_MEDIA, r"cannot identify image"),
    "Check that the file is a complete image or audio file, for example PNG or JPEG; the server itself must reach a URL.",
)
OTHER = (
    AnyPattern(r"\b(images?|audio|video)\b|(?<!float or )\bbase64\b"),
    "Check the images: each must be a whole file in a format that the server reads, for example PNG or JPEG.",
)


def suspect_images(error: InvalidRequestError, body: Mapping[str, Any]) -> None:
    """Name the images of a request as a possible cause in the hint of an error without a reason."""
    parts = (
        part
        for message in body.get("messages") or ()
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for part in message["content"]
    )
    has_images = any(isinstance(part, Mapping) and part.get("type") == "image_url" for part in parts)
    if has_images and error.hint in (InvalidRequestError.default_hint, UNEXPLAINED):
        error.hint = "The images may be the cause: try a smaller image (fewer pixels), or a vision model."
