"""`POST /v1/embeddings`, also under `/api/v0`.

The answer has lists of numbers, or base64 of 32-bit floats, which OpenAI's packages request.
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import json_response
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.embeddings import embedding_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def answer_embeddings(request: IncomingRequest, backend: Backend) -> Response:
    """Answer one embeddings request.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request, or fails.
    """
    job = embedding_job(await read_body(request), backend.models())
    embedded = await run_until_disconnect(request.receive, backend.embed(job))
    write = _base64 if job.as_base64 else list
    data = [
        {"object": "embedding", "embedding": write(vector), "index": index}
        for index, vector in enumerate(embedded.vectors)
    ]
    usage = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
    return json_response({"object": "list", "data": data, "model": job.model, "usage": usage})
