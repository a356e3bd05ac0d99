"""Loading, unloading and downloading models (LM Studio's docs, `2_rest/`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import json_response
from lmdeck.server.requests.body import flag, read_body
from lmdeck.server.requests.native import download_request, load_job, required_text

if TYPE_CHECKING:
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend


async def answer_load(request: IncomingRequest, backend: Backend) -> Response:
    """Load a model, and answer when it is loaded.

    Raises:
        Refusal: The request is invalid, or there is no such model.
        BackendError: The model cannot be loaded.
    """
    body = await read_body(request)
    job = load_job(body, backend.models())
    started = time.perf_counter()
    loaded = await run_until_disconnect(request.receive, backend.load(job))
    seconds = time.perf_counter() - started if loaded.seconds is None else loaded.seconds
    answer: dict[str, Any] = {
        "type": loaded.type,
        "instance_id": loaded.instance.id,
        "load_time_seconds": round(seconds, 3),
        "status": "loaded",
    }
    if flag("echo_load_config", body.get("echo_load_config")):
        answer["load_config"] = {"context_length": loaded.instance.context_length, **loaded.instance.config}
    return json_response(answer)


async def answer_unload(request: IncomingRequest, backend: Backend) -> Response:
    """Unload an instance.

    Raises:
        Refusal: The request is invalid.
        BackendError: There is no such instance.
    """
    instance_id = required_text(await read_body(request), "instance_id")
    await backend.unload(instance_id)
    return json_response({"instance_id": instance_id})


async def answer_download(request: IncomingRequest, backend: Backend) -> Response:
    """Start a download.

    Raises:
        Refusal: The request is invalid.
        BackendError: There is no such model.
    """
    model, quantization = download_request(await read_body(request))
    return json_response(await backend.download(model, quantization))


async def answer_download_status(request: IncomingRequest, backend: Backend) -> Response:
    """Return the progress of a download.

    Raises:
        BackendError: There is no such job.
    """
    return json_response(await backend.download_state(request.params["job_id"]))
