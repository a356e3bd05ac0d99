"""Plans that count the tokens of a chat, and shorten a chat that does not fit its context."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.generation import choose
from lmdeck._plans.history import History
from lmdeck._plans.model_lists import ask_json, list_models
from lmdeck._plans.session import Session
from lmdeck._plans.summaries import Ask, messages_of, scaled_estimate, summarised
from lmdeck._requests.chat import ChatSpec, build_chat
from lmdeck._responses.server_detection import LLAMA_CPP, LM_STUDIO
from lmdeck.errors import APIError, ContextLengthError, EndpointNotFoundError, MalformedStreamError
from lmdeck.messages import Problem
from lmdeck.outputs import TokenCount

MIN_ANSWER = 256  # tokens that are reserved for an answer without `max_tokens`
DOES_NOT_FIT = "The chat has about {count} tokens, but only {room} of the context's {context} are available for it."


def count_tokens(session: Session, spec: ChatSpec) -> Plan[TokenCount]:
    """Count the tokens of a chat's prompt: exactly if the server can, else by an estimate."""
    model = spec.model or session.settings.model or session.models.chosen or (yield from choose(session)) or ""
    if session.peer.product is None:
        yield from _learn_models(session)
    body = build_chat(spec, model, CompatibilityFixes(session.settings.without_rules), stream=False)
    exact = (yield from _counted(session, body)) if session.peer.product != LM_STUDIO else None
    return TokenCount(tokens=exact, is_exact=True) if exact is not None else session.estimator.estimate(model, body)


def _counted(session: Session, body: Mapping[str, Any]) -> Plan[int | None]:
    """Return the server's count, or None.

    Source: llama.cpp `tools/server/README.md`; Anthropic's `count_tokens`.
    """
    try:
        if session.peer.product == LLAMA_CPP:
            chat = {name: body[name] for name in ("messages", "tools") if name in body}
            prompt = _member((yield from ask_json(session, "POST", "/apply-template", chat)), "prompt")
            text = {"content": prompt, "add_special": True, "parse_special": True}
            tokens = _member((yield from ask_json(session, "POST", "/tokenize", text)), "tokens")
            return len(tokens) if isinstance(tokens, list) else None
        counted = yield from ask_json(session, "POST", "/v1/messages/count_tokens", body)
    except (APIError, MalformedStreamError):
        return None
    tokens = _member(counted, "input_tokens")
    return tokens if isinstance(tokens, int) else None


def _member(body: object, name: str) -> object:
    return body.get(name) if isinstance(body, Mapping) else None


def _learn_models(session: Session) -> Plan[None]:
    with suppress(EndpointNotFoundError, MalformedStreamError):  # a server without a list
        yield from list_models(session)


def fit_context(session: Session, spec: ChatSpec, ask: Ask) -> Plan[tuple[ChatSpec, list[Problem]]]:
    """Return a chat that fits its model's context, and a problem if it was shortened.

    `ask` requests a summary from a model.

    Raises:
        ContextLengthError: The chat does not fit, or not even its last exchange does.
    """
    model = spec.model or session.settings.model or session.models.chosen or (yield from choose(session)) or ""
    if not session.models.knows(model):
        yield from _learn_models(session)
    context = session.models.facts(model).context_length
    if context is None:
        return spec, []
    max_tokens = spec.options.get("max_tokens")
    reserve = max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else min(MIN_ANSWER, context // 4)
    room = context - reserve
    count = yield from count_tokens(session, spec)
    if count.most <= room:
        return spec, []
    if spec.context_guard == "trim":
        shorter, problem = _trimmed(spec, count, room), "context_trimmed"
        detail = "{} of {} messages were dropped, so that the chat fits the context."
    elif spec.context_guard == "summarise":
        shorter, problem = (yield from summarised(session.summaries, spec, count, room, ask)), "context_summarised"
        detail = "{} of {} messages were replaced by a summary, so that the chat fits the context."
    else:
        raise _too_long(count, room, context)
    dropped = len(spec.messages) - sum(message in spec.messages for message in shorter.messages)
    if shorter is spec or (yield from count_tokens(session, shorter)).most > room:
        raise _too_long(count, room, context)
    return shorter, [Problem(problem, detail.format(dropped, len(spec.messages)))]


def _too_long(count: TokenCount, room: int, context: int) -> ContextLengthError:
    return ContextLengthError(
        DOES_NOT_FIT.format(count=count.tokens, room=room, context=context),
        prompt_tokens=count.tokens,
        context_length=context,
    )


def _trimmed(spec: ChatSpec, count: TokenCount, room: int) -> ChatSpec:
    """Return the chat without its oldest exchanges; `spec` itself if none can be dropped."""
    history = History(tuple(messages_of(spec)))
    trimmed = history.trimmed(room, scaled_estimate(history.messages, count))
    return spec if len(trimmed) == len(history) else replace(spec, messages=trimmed.messages)
