"""The plan of `/api/v1/chat`, `/v1/responses` and `/v1/messages`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._pipeline.calls import ResponseStream
from lmdeck._pipeline.effects import Plan
from lmdeck._plans.generation import GenerationRequest, generate
from lmdeck._plans.session import Session
from lmdeck._requests.chat import demands_call, expects_one_call
from lmdeck._requests.other_endpoints import anthropic_body, offered_tools, responses_body
from lmdeck._requests.reasoning import (
    anthropic_reasoning,
    check_level,
    fitting_level,
    native_reasoning,
    responses_reasoning,
)
from lmdeck._streaming.anthropic_messages import AnthropicTranslator
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck._streaming.native_chat import NativeTranslator
from lmdeck._streaming.openai_responses import ResponsesTranslator
from lmdeck._streaming.translating_reader import TranslatingReader
from lmdeck._streaming.translator import Translator
from lmdeck.messages import Problem

LOGPROBS = "message.output_text.logprobs"  # the value in `include` of `/v1/responses` that requests them


class Endpoint(Struct, frozen=True, kw_only=True):
    """A chat endpoint: its path, body adjustments, translator, token limit and reasoning field."""

    path: str
    adjust: Callable[[Mapping[str, Any], CompatibilityFixes], dict[str, Any]]
    translator: Callable[[Mapping[str, Any]], Translator]
    limit: str
    reasoning: Callable[[str, Mapping[str, Any]], dict[str, Any]]


def _native_body(options: Mapping[str, Any], _: CompatibilityFixes) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


NATIVE = Endpoint(
    path="/api/v1/chat",
    adjust=_native_body,
    translator=lambda body: NativeTranslator(body.get("max_output_tokens")),
    limit="max_output_tokens",
    reasoning=native_reasoning,
)
RESPONSES = Endpoint(
    path="/v1/responses",
    adjust=responses_body,
    translator=lambda _: ResponsesTranslator(),
    limit="max_output_tokens",
    reasoning=responses_reasoning,
)
MESSAGES = Endpoint(
    path="/v1/messages",
    adjust=anthropic_body,
    translator=lambda _: AnthropicTranslator(),
    limit="max_tokens",
    reasoning=anthropic_reasoning,
)


def begin_endpoint(
    session: Session,
    endpoint: Endpoint,
    model: str | None,
    options: Mapping[str, Any],
    *,
    stream: bool,
    problems: Sequence[Problem] = (),
) -> Plan[ResponseStream[ChatReader]]:
    """Send the request, and read the response up to its first chunks."""
    fixes = CompatibilityFixes(session.settings.without_rules, list(problems))
    level = options.get("reasoning")
    is_level = isinstance(level, str)
    if is_level:
        check_level(level)
    body = endpoint.adjust(
        {name: value for name, value in options.items() if not is_level or name != "reasoning"}, fixes
    )
    offered = OfferedTools(offered_tools(body))

    def build(named: str | None) -> GenerationRequest[ChatReader]:
        reasoning: dict[str, Any] = {}
        if isinstance(level, str):
            fitting = fitting_level(level, session.models.facts(named).reasoning, named or "")
            reasoning = endpoint.reasoning(fitting, body)

        def make_reader(status: int, headers: Mapping[str, str]) -> TranslatingReader:
            assembler = ChatAssembler(
                expects_tokens=body.get(endpoint.limit) != 0,
                expects_logprobs=LOGPROBS in (body.get("include") or ()),
                expects_one_call=expects_one_call(body),
                expects_call=demands_call(body.get("tool_choice")),
                text_parser=StreamParser(offered),
                tools=offered,
                problems=fixes.problems,
                model=named or "",
                model_names=session.models.facts(named).names,
            )
            return TranslatingReader(status, headers, assembler, endpoint.translator(body))

        sent = {**({"model": named} if named else {}), **body, **reasoning, "stream": stream}
        return GenerationRequest(path=endpoint.path, body=sent, fixes=fixes, make_reader=make_reader)

    return generate(session, model, build, level if is_level else None)
