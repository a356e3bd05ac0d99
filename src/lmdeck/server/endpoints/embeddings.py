"""`POST /v1/embeddings`, also under `/api/v0`: always floats, whatever encoding was requested, as LM Studio does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmdeck.server.delivery import json_response
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.embeddings import embedding_job
from lmdeck.web.disconnect import run_until_disconnect

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from lmdeck.server.backend import Backend


async def answer_embeddings(request: Request, backend: Backend) -> Response:
    """Answer one embeddings request.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request, or fails.
    """
    job = embedding_job(await read_body(request), backend.models())
    embedded = await run_until_disconnect(request.receive, backend.embed(job))
    data = [
        {"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(embedded.vectors)
    ]
    usage = {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens}
    return json_response({"object": "list", "data": data, "model": job.model, "usage": usage})
