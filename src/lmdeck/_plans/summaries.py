"""Replace the oldest exchanges of a chat with a summary that the model writes, as a plan.

A summary is stored with the messages that it replaces, and used again as long as the continued chat fits with it. Then it is
summarised together with the exchanges after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from lmdeck._pipeline.effects import Plan
from lmdeck._plans.history import exchanges_of, summary_request, with_summary
from lmdeck._plans.summary_store import Summaries
from lmdeck._requests.chat import ChatSpec
from lmdeck._requests.token_estimates import message_estimate
from lmdeck.messages import Message
from lmdeck.outputs import TokenCount

MAX_SUMMARY_TOKENS = 512
Ask: TypeAlias = Callable[[ChatSpec], Plan[str]]


def summarised(summaries: Summaries, spec: ChatSpec, count: TokenCount, room: int, ask: Ask) -> Plan[ChatSpec]:
    """Return the chat with a summary of its oldest exchanges.

    A chat of one exchange is unchanged.
    """
    messages = messages_of(spec)
    is_led = bool(messages) and messages[0].role == "system"
    exchanges = exchanges_of(messages[is_led:])
    size = scaled_estimate(messages, count)
    sizes = [sum(map(size, exchange)) for exchange in exchanges]
    fixed = count.most - sum(sizes)

    def build(summary: str, first: int) -> ChatSpec:
        recent = [message for exchange in exchanges[first:] for message in exchange]
        return replace(spec, messages=tuple(with_summary(messages[:is_led], summary, recent)))

    for first in range(1, len(exchanges)):
        known = summaries.get(exchanges[:first])
        if known is not None and fixed + size(Message(role="user", content=known)) + sum(sizes[first:]) <= room:
            return build(known, first)
    first = _first_remaining(sizes, room // 2)
    if first < 1:
        return spec
    summary = yield from _summary(summaries, spec, exchanges[:first], sizes, room, ask)
    return build(summary, first)


def _first_remaining(sizes: Sequence[int], room: int) -> int:
    """Return the index of the first of the last exchanges that fit; the last one always remains."""
    first = len(sizes) - 1
    remaining = room - sum(sizes[-1:])
    while first > 0 and sizes[first - 1] <= remaining:
        first -= 1
        remaining -= sizes[first]
    return first


def _summary(
    summaries: Summaries,
    spec: ChatSpec,
    exchanges: Sequence[Sequence[Message]],
    sizes: Sequence[int],
    room: int,
    ask: Ask,
) -> Plan[str]:
    """Summarise exchanges, as many at once as fit; each request includes the summary so far."""
    limit = max(min(MAX_SUMMARY_TOKENS, room // 4), 1)
    done = next((end for end in range(len(exchanges), 0, -1) if summaries.get(exchanges[:end]) is not None), 0)
    summary = summaries.get(exchanges[:done]) or ""
    while done < len(exchanges):
        end, remaining = done + 1, room - 2 * limit - sizes[done]
        while end < len(exchanges) and sizes[end] <= remaining:
            remaining -= sizes[end]
            end += 1
        messages = [message for exchange in exchanges[done:end] for message in exchange]
        excess = max(0, 2 * limit + sizes[done] - room) / max(sizes[done], 1)
        request = summary_request(summary, messages, excess)
        chat = ChatSpec(
            model=spec.model, messages=(request,), options={"max_tokens": limit}, without_rules=spec.without_rules
        )
        summary = yield from ask(chat)
        done = end
        summaries.add(exchanges[:done], summary)
    return summary


def messages_of(spec: ChatSpec) -> list[Message]:
    """Return the messages of a chat as values."""
    return [each if isinstance(each, Message) else Message.from_dict(each) for each in spec.messages]


def scaled_estimate(messages: Sequence[Message], count: TokenCount) -> Callable[[Message], int]:
    """Return a function that estimates a message, scaled so that the sum is the whole count."""
    scale = count.most / (sum(message_estimate(message.to_dict()) for message in messages) or 1)
    return lambda message: round(message_estimate(message.to_dict()) * scale) + 1
