"""The plan of `/v1/chat/completions`, and the reply of a finished response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import get_args

from msgspec.structs import replace

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._parsing.offered_tools import NO_TOOLS, OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.generation import GenerationRequest, generate, read_whole
from lmdeck._plans.session import Session
from lmdeck._requests.chat import ChatSpec, build_chat, demands_call, expects_one_call
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.messages import CacheResult, Problem, Reply
from lmdeck.stats import Measured, Stats

CACHE_RESULTS = get_args(CacheResult)
MIN_GENERATION = 0.02  # seconds; an answer that arrives at once has no meaningful speed


def send_chat(session: Session, spec: ChatSpec) -> Plan[Reply]:
    """Send a chat and return its reply, as a part of another plan."""
    return final_reply((yield from read_whole(begin_chat(session, spec, stream=False))))


def begin_chat(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
    """Return the plan that sends the request and reads the response up to its first chunks."""
    if spec.context_guard is not None:
        return _begin_guarded(session, spec, stream=stream)
    return generate(session, spec.model, partial(_build, session, spec, (), stream), spec.reasoning)


def _begin_guarded(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
    from lmdeck._plans.token_counts import fit_context

    fitting, problems = yield from fit_context(session, spec, partial(_ask, session))
    build = partial(_build, session, fitting, problems, stream)
    return (yield from generate(session, fitting.model, build, fitting.reasoning))


def _ask(session: Session, spec: ChatSpec) -> Plan[str]:
    """Send a chat and return the content of the reply."""
    return (yield from send_chat(session, spec)).content


def final_reply(stream: ResponseStream[ChatReader]) -> Reply:
    """Return the reply of a finished response.

    Measured times replace those that the server omits.
    """
    reply = stream.reader.reply()
    cache = stream.cache or stream.response.headers.get("x-lmdeck-cache")  # of this client, or of a gateway
    return replace(reply, stats=_complete_stats(reply, stream), cache=cache if cache in CACHE_RESULTS else None)


def _build(
    session: Session,
    spec: ChatSpec,
    problems: Sequence[Problem],
    stream: bool,  # bound by position: the model is the last argument
    model: str | None,
) -> GenerationRequest[ChatReader]:
    fixes = CompatibilityFixes((*session.settings.without_rules, *spec.without_rules), list(problems))
    options, one_call = spec.options, expects_one_call(spec.options)
    body = build_chat(spec, model, fixes, stream=stream)
    choice, facts = body.get("tool_choice"), session.models.facts(model)
    if spec.reasoning is not None:
        from lmdeck._requests.reasoning import chat_reasoning, fitting_level  # imported late: few chats set it

        body.update(chat_reasoning(fitting_level(spec.reasoning, facts.reasoning, model or ""), body))
    offered = NO_TOOLS if choice == "none" or not spec.tools else OfferedTools(body.get("tools"))

    def make_reader(status: int, headers: Mapping[str, str]) -> ChatReader:
        assembler = ChatAssembler(
            strict=spec.strict,
            expects_tokens=options.get("max_tokens") != 0,
            expects_logprobs=bool(options.get("logprobs")),
            expects_one_call=one_call,
            expects_call=choice is not None and demands_call(choice),
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
        on_finished=partial(session.estimator.learn, model or "", body),
    )


def _complete_stats(reply: Reply, stream: ResponseStream[ChatReader]) -> Stats:
    """Return the statistics with measured values in place of missing ones.

    Without a token count, each chunk counts as one token.
    """
    sent, measured = reply.stats, stream.measured()
    if not stream.reader.is_streamed:
        # The first token arrived with the last one, so only the total time is known.
        whole = measured.total_time
        measured = Measured(time_to_first_token=whole, generation_time=whole, total_time=whole)
    first, seconds, speed = sent.time_to_first_token, sent.generation_time, sent.tokens_per_second
    tokens = reply.usage.completion_tokens if reply.usage else stream.chunk_count
    if speed is None and tokens and (took := measured.generation_time or 0.0) >= MIN_GENERATION:
        speed = tokens / took
    return Stats(
        time_to_first_token=measured.time_to_first_token if first is None else first,
        tokens_per_second=speed,
        generation_time=measured.generation_time if seconds is None else seconds,
        stop_reason=sent.stop_reason,
        model_load_time=sent.model_load_time,
        draft_tokens=sent.draft_tokens,
        queue_time=stream.queue_time,
        measured=measured,
    )
