"""Failures of LM Studio itself, with its messages, as a status or within a stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lmdeck._encoders.event_stream import encode_event
from lmdeck.server.backend import BackendError
from lmdeck.server.errors import failure_body, native_error
from lmdeck.testing.faults.declaration import fault, send_first_chunks
from lmdeck.testing.faults.refusals import respond_json

if TYPE_CHECKING:
    from lmdeck.testing.fake_connection import PlannedResponse, Wire


async def _send_failure(
    wire: Wire,
    response: PlannedResponse,
    message: str,
    *,
    status: int = 400,
    after_chunks: int = 0,
    error: object = None,
) -> None:
    """Report an error as LM Studio does.

    In a stream that has started, it is an event; otherwise a status and a body.
    """
    failure = BackendError(message, status=status, body=error)
    if not response.is_stream:
        await respond_json(wire, status, failure_body(wire.path, failure))
        return
    await send_first_chunks(wire, response, after_chunks)
    body: object = {"error": {"message": message}, "message": message}
    if wire.path.startswith("/api/v1/"):
        body = {"type": "error", "error": native_error("unknown", message)}
    elif wire.path in {"/v1/messages", "/v1/responses"}:
        body = {"type": "error", "message": message, "error": {"type": "api_error", "message": message}}
    await wire.send(encode_event(json.dumps(body).encode(), "error"))
    await wire.end()


@fault("error")
async def crash(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The model crashes after some chunks, or before the response."""
    message = "The model has crashed without additional information. (Exit code: null)"
    await _send_failure(wire, response, message, after_chunks=after_chunks)


@fault("error")
async def unload(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The model is unloaded while it answers."""
    await _send_failure(wire, response, "Model unloaded.", after_chunks=after_chunks)


@fault("error")
async def channel_error(wire: Wire, response: PlannedResponse, *, after_chunks: int = 0) -> None:
    """The message is "Channel Error" and nothing else."""
    await _send_failure(wire, response, "Channel Error", after_chunks=after_chunks)


@fault("error")
async def prediction_error(wire: Wire, response: PlannedResponse, *, after_chunks: int = 3) -> None:
    """The error of the Python engine is passed through."""
    await _send_failure(
        wire, response, "Error in iterating prediction stream: StopIteration: ", after_chunks=after_chunks
    )


@fault("error")
async def tool_call_unparsed(wire: Wire, response: PlannedResponse, *, after_chunks: int = 1) -> None:
    """LM Studio cannot parse the tool call that the model wrote."""
    await _send_failure(
        wire, response, "Failed to parse tool call: Unexpected end of content", after_chunks=after_chunks
    )


@fault("error")
async def context_overflow_keep_first(wire: Wire, response: PlannedResponse) -> None:
    """The context is too small, phrasing 1: an event in a stream with status 200."""
    message = (
        "Trying to keep the first 9123 tokens when context the overflows. However, the model is loaded with context "
        "length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide "
        "a shorter input"
    )
    await _send_failure(wire, response, message)


@fault("error")
async def context_overflow_tokens_to_keep(wire: Wire, response: PlannedResponse) -> None:
    """The context is too small, phrasing 2, without numbers."""
    message = (
        "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model with "
        "a larger context length, or provide a shorter input"
    )
    await _send_failure(wire, response, message)


@fault("error")
async def context_overflow_n_keep(wire: Wire, response: PlannedResponse) -> None:
    """The context is too small, phrasing 3: llama.cpp's message."""
    await _send_failure(wire, response, "Cannot truncate prompt with n_keep (9123) >= n_ctx (4096)")


@fault("error")
async def context_overflow_code(wire: Wire, response: PlannedResponse) -> None:
    """The context is too small, phrasing 4: an error object with OpenAI's code."""
    message = "This model's maximum context length is 4096 tokens, however you requested 9123 tokens."
    error = {
        "message": message,
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    await _send_failure(wire, response, message, error={"error": error})


@fault("error")
async def context_overflow_crash(wire: Wire, response: PlannedResponse) -> None:
    """The context is too small, phrasing 5: the worker crashes and reports only its exit code."""
    message = (
        "The model has crashed without additional information. (Exit code: 18446744072635812000). "
        "Error Data: n/a, Additional Data: n/a"
    )
    await _send_failure(wire, response, message)


@fault("error")
async def model_not_found(wire: Wire, _: PlannedResponse) -> None:
    """404, with the list of available models."""
    message = 'Model "nope" not found. Please specify a valid model.\n\nYour models:\n\nqwen2.5-7b-instruct'
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    await respond_json(wire, 404, {"error": error})


@fault("error")
async def no_models_loaded(wire: Wire, _: PlannedResponse) -> None:
    """404: no model is loaded, and loading on demand is off."""
    message = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": None}
    await respond_json(wire, 404, {"error": error})


@fault("error")
async def load_refused(wire: Wire, _: PlannedResponse) -> None:
    """404: the model needs more memory than is free."""
    message = (
        'Failed to load model "qwen2.5-7b-instruct". Error: Model loading aborted due to insufficient system resources. '
        "Overloading the system will likely cause it to freeze."
    )
    error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    await respond_json(wire, 404, {"error": error})


@fault("error")
async def template_error(wire: Wire, response: PlannedResponse) -> None:
    """The model's prompt template fails."""
    await _send_failure(
        wire, response, "Parser Error: Expected closing statement token. OpenSquareBracket !== CloseStatement."
    )


@fault("error")
async def grammar_error(wire: Wire, response: PlannedResponse) -> None:
    """The engine cannot compile the schema of a tool to a grammar."""
    message = "Failed to initialize samplers: failed to parse grammar"
    await _send_failure(
        wire, response, message, error={"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    )
