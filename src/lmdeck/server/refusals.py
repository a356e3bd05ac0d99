"""LM Studio's ways to say no, each with the body it was seen to send.

Bodies come in several shapes: a bare string for most validation, a string that holds a JSON list of issues for tool schemas,
OpenAI's object for unknown models, and, for an unknown path, status 200. Clients have to live with all of them, so the server
sends each where LM Studio sends it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Refusal",
    "bad_structure",
    "invalid",
    "model_not_found",
    "no_models_loaded",
    "too_large",
    "tool_issues",
    "unexpected_endpoint",
]


class Refusal(Exception):  # noqa: N818  # a no is an answer here, not a failure of the server
    """A request is answered with `status` and the JSON `body` instead of being run."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def invalid(text: str) -> Refusal:
    """Refuse a field's value with a bare text."""
    return Refusal(400, {"error": text})


def bad_structure() -> Refusal:
    """Refuse `messages` that are no history."""
    return invalid("Invalid 'messages' in payload. Please check the structure of your 'messages' and try again")


def tool_issues(issues: list[dict[str, Any]]) -> Refusal:
    """Refuse all tools because of some: the issues travel as JSON text inside the string."""
    return Refusal(400, {"error": json.dumps(issues, indent=2)})


def model_not_found(model: str, available: Iterable[str]) -> Refusal:
    """Refuse a model that is not on hand; the message lists those that are."""
    listing = "\n".join(available)
    message = f'Model "{model}" not found. Please specify a valid model.\n\nYour models:\n\n{listing}'
    return _openai(404, message, "model", "model_not_found")


def no_models_loaded() -> Refusal:
    """Refuse a request that names no model while none is loaded."""
    return _openai(
        404, "No models loaded. Please load a model in the developer page or use the `lms load` command.", "model"
    )


def _openai(status: int, message: str, param: str, code: str | None = None) -> Refusal:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Refusal(status, {"error": error})


def too_large(limit: int) -> Refusal:
    """Refuse a body of more than `limit` bytes."""
    return Refusal(
        413, {"error": f"The request body is larger than {limit} bytes. Send a shorter history or smaller images."}
    )


def unexpected_endpoint(method: str, target: str) -> Refusal:
    """Answer a path or method that LM Studio does not know: with status 200."""
    return Refusal(200, {"error": f"Unexpected endpoint or method. ({method} {target})"})
