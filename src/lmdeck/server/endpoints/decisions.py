"""`POST /v1/decisions` and `POST /v1/systemone`: one probability for each possible answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmdeck._incoming.disconnect import run_until_disconnect
from lmdeck.server.http_responses import json_response
from lmdeck.server.requests.body import read_body
from lmdeck.server.requests.decisions import decision_job, systemone_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmdeck._incoming.messages import IncomingRequest, Response
    from lmdeck.server.backend import Backend
    from lmdeck.server.jobs import DecisionQuestion


async def answer_decisions(request: IncomingRequest, backend: Backend) -> Response:
    """Answer in OpenAI's format: a list in the order of the questions.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request, or fails.
    """
    job = decision_job(await read_body(request), backend.models())
    decision = await run_until_disconnect(request.receive, backend.decide(job))
    answers = [_answer(*pair) for pair in zip(job.questions, decision.distributions, strict=True)]
    usage = {
        "input_tokens": decision.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": decision.prompt_tokens,
    }
    return json_response({"answers": answers, "model": job.model, "usage": usage})


async def answer_systemone(request: IncomingRequest, backend: Backend) -> Response:
    """Answer in TypeSafe's format: an object by question name.

    Questions that were declined are left out.

    Raises:
        Refusal: The request is invalid.
        BackendError: The back end refuses the request, or fails.
    """
    job = systemone_job(await read_body(request), backend.models())
    decision = await run_until_disconnect(request.receive, backend.decide(job))
    answers = {
        question.name: _systemone_answer(question, distribution)
        for question, distribution in zip(job.questions, decision.distributions, strict=True)
        if distribution is not None
    }
    usage = {"input_tokens": decision.prompt_tokens, "output_tokens": 0}
    return json_response({"model": job.model, "answers": answers, "usage": usage})


def _answer(question: DecisionQuestion, distribution: Sequence[float] | None) -> dict[str, Any]:
    if distribution is None:
        return {"type": "refusal", "name": question.name}
    head = {"type": question.kind, "name": question.name}
    if question.kind == "predicate":
        return {**head, "probability": distribution[0]}
    values = [option.value for option in question.options]
    rated = list(zip(values, distribution, strict=True))
    if question.kind == "choice":
        probabilities = [{"value": value, "probability": probability} for value, probability in rated]
        best = values[distribution.index(max(distribution))]
        return {**head, "choice": best, "confidence": _confidence(distribution), "probabilities": probabilities}
    levels = [{"value": level, "label": each[0], "probability": each[1]} for level, each in enumerate(rated)]
    return {**head, "score": _mean(distribution), "confidence": _confidence(distribution), "probabilities": levels}


def _systemone_answer(question: DecisionQuestion, distribution: Sequence[float]) -> dict[str, Any]:
    if question.kind == "predicate":
        return {"type": "noul", "noul": distribution[0]}
    labels = [str(option.value) for option in question.options]
    if question.kind == "choice":
        best = labels[distribution.index(max(distribution))]
        chosen: dict[str, Any] = {"choice": best, "probabilities": dict(zip(labels, distribution, strict=True))}
    else:
        numbers = [str(level) for level in range(len(labels))]
        chosen = {
            "score": _mean(distribution),
            "legend": dict(zip(numbers, labels, strict=True)),
            "probabilities": dict(zip(numbers, distribution, strict=True)),
        }
    return {"type": question.kind, **chosen, "confidence": _confidence(distribution)}


def _mean(distribution: Sequence[float]) -> float:
    """Return the expected level, counted from 0."""
    return sum(level * probability for level, probability in enumerate(distribution))


def _confidence(distribution: Sequence[float]) -> float:
    """Return how peaked a distribution is, from 0 to 1.

    It is 1 if one option has all the probability, 0 if all are equal.
    """
    count = len(distribution)
    return min(max((count * max(distribution) - 1) / (count - 1), 0.0), 1.0)
