"""`/api/v1/chat`, `/v1/responses` and `/v1/messages`, as plans: one for all three."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from lmdeck.adjustments import Adjustments
from lmdeck.chain import Plan
from lmdeck.chain.exchange import Answer
from lmdeck.client.plans import with_model, with_simpler_tools
from lmdeck.client.session import Session
from lmdeck.messages import Problem
from lmdeck.protocol.endpoint_bodies import anthropic_body, offered_tools, responses_body
from lmdeck.protocol.translated import TranslatedReader
from lmdeck.sansio.anthropic import AnthropicTranslator
from lmdeck.sansio.assembler import ChatAssembler
from lmdeck.sansio.native import NativeTranslator
from lmdeck.sansio.parser import StreamParser
from lmdeck.sansio.responses import ResponsesTranslator
from lmdeck.sansio.translation import Translator

LOGPROBS = "message.output_text.logprobs"  # what `include` of `/v1/responses` holds where they are asked for

__all__ = ["MESSAGES", "NATIVE", "RESPONSES", "Endpoint", "ask_endpoint"]


class Endpoint(Struct, frozen=True, kw_only=True):
    """One of the three: its path, how its body is made acceptable, and what reads its answer."""

    path: str
    adjust: Callable[[Mapping[str, Any], Adjustments], dict[str, Any]]
    translator: Callable[[Mapping[str, Any]], Translator]
    limit: str


def _native_body(given: Mapping[str, Any], changes: Adjustments) -> dict[str, Any]:  # noqa: ARG001  # as the others
    return {name: value for name, value in given.items() if value is not None}


NATIVE = Endpoint(
    path="/api/v1/chat",
    adjust=_native_body,
    translator=lambda body: NativeTranslator(body.get("max_output_tokens")),
    limit="max_output_tokens",
)
RESPONSES = Endpoint(
    path="/v1/responses",
    adjust=responses_body,
    translator=lambda _: ResponsesTranslator(),
    limit="max_output_tokens",
)
MESSAGES = Endpoint(
    path="/v1/messages", adjust=anthropic_body, translator=lambda _: AnthropicTranslator(), limit="max_tokens"
)


def ask_endpoint(
    session: Session,
    endpoint: Endpoint,
    model: str | None,
    given: Mapping[str, Any],
    *,
    stream: bool,
    problems: Sequence[Problem] = (),
) -> Plan[Answer]:
    """Ask, and read the answer until something happens in it."""
    changes = Adjustments(session.settings.without_rules, problems)
    body = endpoint.adjust(given, changes)
    offered = offered_tools(body)

    def ask(named: str | None) -> Plan[Answer]:
        sent = {**({"model": named} if named else {}), **body, "stream": stream}

        def make_reader(status: int, headers: Mapping[str, str]) -> TranslatedReader:
            assembler = ChatAssembler(
                expects_tokens=body.get(endpoint.limit) != 0,
                expects_logprobs=LOGPROBS in (body.get("include") or ()),
                text_parser=StreamParser(offered),
                tools=offered,
                problems=changes.problems,
                model=named or "",
            )
            return TranslatedReader(status, headers, assembler, endpoint.translator(body))

        def post(body: Mapping[str, Any]) -> Plan[Answer]:
            return (yield from session.handler(session.call("POST", endpoint.path, make_reader, body)))

        return (yield from with_simpler_tools(session, sent, changes, post))

    return (yield from with_model(session, model, ask))
