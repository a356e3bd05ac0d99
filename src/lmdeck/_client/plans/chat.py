"""The plan of `/v1/chat/completions`, and the reply of a finished response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, get_args

from msgspec.structs import replace

from lmdeck._client.plans.generation import GenerationRequest, generate, read_rest
from lmdeck._client.plans.token_counts import guarded
from lmdeck._client.session import Session
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._pipeline.effects import Plan
from lmdeck._pipeline.exchange import ResponseStream
from lmdeck._requests.chat import ChatSpec, build_chat, demands_call
from lmdeck._requests.reasoning import chat_reasoning, fitting_level
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.messages import CacheResult, Problem, Reply
from lmdeck.stats import Stats

CACHE_RESULTS = get_args(CacheResult)
SHORTEST_GENERATION = 0.02  # seconds; an answer that arrives at once has no meaningful speed


def send_chat(session: Session, spec: ChatSpec) -> Plan[Reply]:
    """Return the plan of a chat's whole answer."""
    return whole_reply(begin_chat(session, spec, stream=False))


def whole_reply(begin: Plan[ResponseStream[ChatReader]]) -> Plan[Reply]:
    """Read the response that a plan begins to its end, and return the reply."""
    answer = yield from begin
    yield from read_rest(answer)
    return final_reply(answer)


def begin_chat(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
    """Return the plan that sends the request and reads the response up to its first chunks."""
    if spec.context_guard is not None:
        return _begin_guarded(session, spec, stream=stream)
    return _begin(session, spec, (), stream=stream)


def _begin_guarded(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
    fitting, problems = yield from guarded(session, spec, partial(_ask, session))
    return (yield from _begin(session, fitting, problems, stream=stream))


def _ask(session: Session, spec: ChatSpec) -> Plan[str]:
    """Return the plan of the content of an answer."""
    return (yield from send_chat(session, spec)).content


def _begin(
    session: Session, spec: ChatSpec, problems: Sequence[Problem], *, stream: bool
) -> Plan[ResponseStream[ChatReader]]:
    build = partial(_build, session, spec, problems=problems, stream=stream)
    return generate(session, spec.model, build, spec.reasoning)


def final_reply(stream: ResponseStream[ChatReader]) -> Reply:
    """Return the reply of a finished response.

    Measured times replace those that the server omits.
    """
    reply = stream.reader.reply()
    cache = stream.cache or stream.response.headers.get("x-lmdeck-cache")  # of this client, or of a gateway
    return replace(reply, stats=_complete_stats(reply, stream), cache=cache if cache in CACHE_RESULTS else None)


def _build(
    session: Session, spec: ChatSpec, model: str | None, *, problems: Sequence[Problem], stream: bool
) -> GenerationRequest[ChatReader]:
    fixes = CompatibilityFixes((*session.settings.without_rules, *spec.without_rules), problems)
    body = build_chat(spec, model, fixes, stream=stream)
    facts = session.models.facts(model)
    if spec.reasoning is not None:
        body.update(chat_reasoning(fitting_level(spec.reasoning, facts.reasoning, model or ""), body))
    offered = OfferedTools(() if body.get("tool_choice") == "none" else body.get("tools"))

    def make_reader(status: int, headers: Mapping[str, str]) -> ChatReader:
        assembler = ChatAssembler(
            strict=spec.strict,
            expects_tokens=spec.expects_tokens,
            expects_logprobs=spec.expects_logprobs,
            expects_one_call=spec.expects_one_call,
            expects_call=demands_call(body.get("tool_choice")),
            text_parser=StreamParser(offered, architecture=facts.architecture),
            tools=offered,
            problems=fixes.problems,
            model=model or "",
            model_names=facts.names,
        )
        return ChatReader(status, headers, assembler)

    return GenerationRequest(
        path="/v1/chat/completions",
        body=body,
        fixes=fixes,
        make_reader=make_reader,
        headers={"Cache-Control": spec.cache_control} if spec.cache_control else {},
        on_finished=partial(_learn_tokens, session, model or "", body),
    )


def _learn_tokens(session: Session, model: str, body: Mapping[str, Any], answer: ResponseStream[ChatReader]) -> None:
    usage = answer.reader.usage
    if usage is not None:
        session.estimator.learn(model, body, usage.prompt_tokens)


def _complete_stats(reply: Reply, stream: ResponseStream[ChatReader]) -> Stats:
    """Return the statistics with missing values measured.

    Without a token count, each chunk counts as one token.
    """
    stats, measured = reply.stats, stream.measured()
    if not stream.reader.is_streamed:
        # The first token came with the last, so only the total time is known.
        measured = replace(measured, time_to_first_token=measured.total_time, generation_time=measured.total_time)
    tokens = reply.usage.completion_tokens if reply.usage else stream.chunk_count
    return Stats(
        time_to_first_token=_first_known(stats.time_to_first_token, measured.time_to_first_token),
        tokens_per_second=_first_known(stats.tokens_per_second, _speed(tokens, measured.generation_time)),
        generation_time=_first_known(stats.generation_time, measured.generation_time),
        stop_reason=stats.stop_reason,
        model_load_time=stats.model_load_time,
        draft_tokens=stats.draft_tokens,
        queue_time=stream.queue_time,
        measured=measured,
    )


def _speed(tokens: int, seconds: float | None) -> float | None:
    return tokens / seconds if tokens and seconds is not None and seconds >= SHORTEST_GENERATION else None


def _first_known(server: float | None, measured: float | None) -> float | None:
    return measured if server is None else server
