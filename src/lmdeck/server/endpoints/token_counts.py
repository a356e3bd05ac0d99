"""`POST /v1/messages/count_tokens`: the tokens of a prompt, counted by the model.

LM Studio does not have this endpoint.

Source: Anthropic's Messages API reference. A body with messages or tools in OpenAI's form is counted, too.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from lmdeck._encoders.backend_events import Finished
from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import json_response
from lmdeck.server.jobs import Sampling
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.chat import chat_job
from lmdeck.server.requests.messages import messages_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend

_OPENAI_ROLES = frozenset({"system", "developer", "tool"})


async def answer_token_count(request: IncomingRequest, backend: Backend) -> Response:
    """Answer one request.

    The prompt is processed and one token is generated; the usage of that answer has the count.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request, or fails.
    """
    body = {**await read_body(request), "max_tokens": 1}
    models = backend.models()
    job = chat_job(body, models)[0] if _is_openai(body) else messages_request(body, models)[0]
    counted = replace(job, sampling=Sampling(temperature=0.0, max_tokens=1), tool_choice="auto")
    tokens = await run_until_disconnect(request.receive, _prompt_tokens(backend.chat(counted)))
    return json_response({"input_tokens": tokens})


async def _prompt_tokens(events: AsyncGenerator[BackendEvent, None]) -> int:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                return event.prompt_tokens
    return 0


def _is_openai(body: Mapping[str, Any]) -> bool:
    items = [each for name in ("messages", "tools") for each in body.get(name) or () if isinstance(each, dict)]
    return any(each.get("role") in _OPENAI_ROLES or "function" in each or "tool_calls" in each for each in items)
