"""The error responses of LM Studio, with the bodies it was observed to send.

Bodies have several shapes: a bare string for most validation errors, a string that contains a JSON list of issues for tool
schemas, OpenAI's object for unknown models, separate objects for `/api/v1` and `/v1/messages`, and status 200 for an unknown
path. Clients meet all of them, so the server sends each where LM Studio sends it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmdeck._incoming.disconnect import BodyRefusedError
    from lmdeck.server.backend import BackendError

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class Refusal(Exception):  # refusing a request is a normal answer, not a failure
    """A request that is answered with `status` and an error instead of being run.

    With `is_bare`, the error of the OpenAI endpoints is a string; the errors of the other endpoints are always objects.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # the field's name
        param: str | None = None,
        code: str | None = None,
        is_bare: bool = False,
    ) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.is_bare = is_bare

    def body(self, path: str) -> dict[str, Any]:
        """Return the body in the error format of the endpoint at `path`."""
        if path.startswith("/api/v1/"):
            kind = "model_not_found" if self.code == "model_not_found" else self.type.removesuffix("_error")
            return {"error": native_error(kind, self.message, None if kind == self.code else self.code, self.param)}
        if path == "/v1/messages":
            return _anthropic(self.status, self.message)
        if self.is_bare and path != "/v1/responses":
            return {"error": self.message}
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def failure_body(path: str, error: BackendError) -> object:
    """Return the body for a back end's error, in the error format of the endpoint at `path`."""
    if error.body is not None:
        return error.body
    if path.startswith("/api/v1/"):
        return {"error": native_error(error.type, error.message, error.code)}
    if path == "/v1/messages":
        return _anthropic(error.status, error.message)
    if path == "/v1/responses" or error.code:
        return {"error": {"message": error.message, "type": f"{error.type}_error", "param": None, "code": error.code}}
    return {"error": error.message}


def native_error(kind: str, message: str, code: str | None = None, param: str | None = None) -> dict[str, str]:
    """Return the error object of `/api/v1` without empty fields.

    Source: LM Studio's docs, `2_rest/streaming-events.md`.
    """
    fields = {"type": kind, "message": message, "code": code, "param": param}
    return {name: value for name, value in fields.items() if value is not None}


def _anthropic(status: int, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def invalid(text: str, param: str | None = None, code: str | None = None) -> Refusal:
    """Return the refusal of a field's value; bare where the endpoint sends bare strings."""
    return Refusal(400, text, param=param, code=code, is_bare=True)


def issue(message: str, param: str, code: str) -> Refusal:
    """Return the refusal of a field, as an object that names it."""
    return Refusal(400, message, param=param, code=code)


def bad_structure() -> Refusal:
    """Return the refusal of `messages` with an invalid structure."""
    return invalid("Invalid 'messages' in payload. Please check the structure of your 'messages' and try again")


def tool_issues(issues: list[dict[str, Any]]) -> Refusal:
    """Return the refusal of invalid tools; its message is the list of issues as JSON text."""
    return invalid(json.dumps(issues, indent=2))


def model_not_found(model: str, available: Iterable[str]) -> Refusal:
    """Return the refusal of an unknown model; the message lists the available ones."""
    listing = "\n".join(available)
    message = f'Model "{model}" not found. Please specify a valid model.\n\nYour models:\n\n{listing}'
    return Refusal(404, message, param="model", code="model_not_found")


def no_models_loaded() -> Refusal:
    """Return the refusal of a request that does not name a model while none is loaded."""
    message = "No models loaded. Please load a model in the developer page or use the `lms load` command."
    return Refusal(404, message, param="model")


def body_refused(error: BodyRefusedError) -> Refusal:
    """Return the refusal of a body that is too large or does not arrive."""
    return Refusal(error.status, f"{error} {error.hint}", is_bare=True)


def missing_token() -> Refusal:
    """Return the refusal of a request without the required token."""
    message = (
        "An LM Studio API token is required to make requests to this server, but none was provided using the "
        "Authorization header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN'). "
        "Learn more at: https://lmstudio.ai/docs/developer/core/authentication."
    )
    return Refusal(401, message, type="invalid_request", code="invalid_api_key")


def invalid_token() -> Refusal:
    """Return the refusal of a wrong token."""
    return Refusal(401, "Malformed or unknown LM Studio API token.", type="invalid_request", code="invalid_api_key")


def unexpected_endpoint(method: str, target: str) -> Refusal:
    """Return the answer to an unknown path or method; LM Studio sends it with status 200."""
    return Refusal(200, f"Unexpected endpoint or method. ({method} {target})", is_bare=True)
