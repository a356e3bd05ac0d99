"""The plan of `/v1/chat/completions`, and the reply of a finished response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from lmdeck.stats import Measured, Stats


def begin_chat(session: Session, spec: ChatSpec, *, stream: bool) -> Plan[ResponseStream[ChatReader]]:
    """Send the request, and read the response up to its first chunks."""
    problems: list[Problem] = []
    if spec.context_guard is not None:
        spec, problems = yield from guarded(session, spec, lambda asked: _ask(session, asked))
    sent: dict[str, Any] = {}

    def build(model: str | None) -> GenerationRequest[ChatReader]:
        request = _build(session, spec, model, problems, stream=stream)
        sent.update(request.body)
        return request

    answer = yield from generate(session, spec.model, build, spec.reasoning)
    answer.when_finished(lambda: _learn_tokens(session, sent, answer))
    return answer


def _ask(session: Session, spec: ChatSpec) -> Plan[str]:
    """Ask a chat within a plan, and return the content of the answer."""
    answer = yield from begin_chat(session, spec, stream=False)
    yield from read_rest(answer)
    return final_reply(answer).content


def _learn_tokens(session: Session, sent: Mapping[str, Any], answer: ResponseStream[ChatReader]) -> None:
    usage = answer.reader.usage
    if usage is not None:
        session.estimator.learn(str(sent.get("model") or ""), sent, usage.prompt_tokens)


def final_reply(stream: ResponseStream[ChatReader]) -> Reply:
    """Return the reply of a finished response.
    Measured times replace those that the server omits.
    """
    reader = stream.reader
    reply, measured = reader.reply(), stream.measured()
    if not reader.is_streamed:
        # The first token came with the last, so only the total time is known.
        measured = replace(measured, time_to_first_token=measured.total_time, generation_time=measured.total_time)
    return replace(reply, stats=_complete_stats(reply, measured, stream), cache=_cache_result(stream))


def _cache_result(stream: ResponseStream[ChatReader]) -> CacheResult | None:
    """Return what this client's cache did, or a gateway's."""
    result = stream.cache or stream.response.headers.get("x-lmdeck-cache")
    return next((known for known in get_args(CacheResult) if known == result), None)


def _build(
    session: Session, spec: ChatSpec, model: str | None, problems: Sequence[Problem], *, stream: bool
) -> GenerationRequest[ChatReader]:
    fixes = CompatibilityFixes((*session.settings.without_rules, *spec.without_rules), problems)
    body = build_chat(spec, model, fixes, stream=stream)
    if spec.reasoning is not None:
        level = fitting_level(spec.reasoning, session.reasoning_options(model), model or "")
        body.update(chat_reasoning(level, body))
    offered = OfferedTools(() if body.get("tool_choice") == "none" else body.get("tools"))

    def make_reader(status: int, headers: Mapping[str, str]) -> ChatReader:
        assembler = ChatAssembler(
            strict=spec.strict,
            expects_tokens=spec.expects_tokens,
            expects_logprobs=spec.expects_logprobs,
            expects_one_call=spec.expects_one_call,
            expects_call=demands_call(body.get("tool_choice")),
            text_parser=StreamParser(offered, architecture=session.architecture(model)),
            tools=offered,
            problems=fixes.problems,
            model=model or "",
            model_names=session.names_of(model),
        )
        return ChatReader(status, headers, assembler)

    headers = {"Cache-Control": spec.cache_control} if spec.cache_control else {}
    return GenerationRequest(
        path="/v1/chat/completions", body=body, fixes=fixes, make_reader=make_reader, headers=headers
    )


def _complete_stats(reply: Reply, measured: Measured, stream: ResponseStream[ChatReader]) -> Stats:
    """Return the statistics with missing values measured.
    Without a token count, each chunk is one token.
    """
    stats = reply.stats
    speed = stats.tokens_per_second
    tokens = reply.usage.completion_tokens if reply.usage else stream.chunk_count
    if speed is None and tokens and measured.generation_time:
        speed = tokens / measured.generation_time
    return Stats(
        time_to_first_token=_server_value_or_measured(stats.time_to_first_token, measured.time_to_first_token),
        tokens_per_second=speed,
        generation_time=_server_value_or_measured(stats.generation_time, measured.generation_time),
        stop_reason=stats.stop_reason,
        model_load_time=stats.model_load_time,
        draft_tokens=stats.draft_tokens,
        queue_time=stream.queue_time,
        measured=measured,
    )


def _server_value_or_measured(server: float | None, measured: float | None) -> float | None:
    return measured if server is None else server
