# ruff: noqa: E501 - a table of texts
"""One text has one result: `parse()`, `send()` and `stream()` agree, and no text is too deep."""

from __future__ import annotations

import random

import pytest

from laws.material import EXAMPLES, LITERALS, PIECES, TOOLS, mixed_text
from lmdeck import Chat, ParsedMessage, Reply, StreamParser, parse
from lmdeck.testing import FakeLMStudio

pytestmark = pytest.mark.no_cover  # the same lines on thousands of texts: measured, they would take three times as long

NESTING = ('{"function": ', '[{"function": ', "more:{", "]<]minimax[>[<more>", "[[", "[save(tags=[", "<a>{")
"""Openings that a reader may follow into one another."""
Essence = tuple[str, str, list[tuple[str, object]], list[tuple[str, str]]]
TEXTS = (
    "Hm.</think>It rains.", "Hm.\n</think>\n\nIt rains.", "</think>It rains.", "<think>Hm.</think>It rains.", "It <b>rains</think> here.",
    "<think>Hm.", "a </think> b </think> c", "\n\n<think>\nHm.\n</think>\n\nIt rains.\n", "<answer>42</answer>", "[THINK]Hm.[/THINK]It rains.",
    '{"html": "<s>old</s> <answer>new</answer>"}', "  It rains.  ", *EXAMPLES.values(),
)  # fmt: skip


def essence(result: ParsedMessage | Reply) -> Essence:
    return (
        result.content, result.reasoning, [(call.name, call.arguments) for call in result.tool_calls],
        [(problem.code, problem.detail) for problem in result.problems if problem.code != "adjusted"],
    )  # fmt: skip


def both_ways(chat: Chat, fake: FakeLMStudio, text: str) -> tuple[Essence, Essence]:
    fake.reply(text).reply(text)
    sent = chat.send()
    with chat.stream() as stream:
        stream.until_done()
    return essence(sent), essence(stream.reply)


@pytest.mark.parametrize("offers_tools", [False, True], ids=["no tools", "tools"])
def test_sent_streamed_and_parsed_text_has_one_result(offers_tools: bool) -> None:
    rng = random.Random(3)
    texts = [*TEXTS, *(mixed_text(rng).replace("\ud83d", "") for _ in range(60))]
    with FakeLMStudio(seed=4) as fake:
        chat = fake.client().chat().user("a")
        chat = chat.with_tools(TOOLS) if offers_tools else chat
        for text in texts:
            parsed = parse(text, TOOLS if offers_tools else None)
            if not (parsed.content or parsed.reasoning or parsed.tool_calls):
                continue
            if any(problem.code == "reasoning_unopened" for problem in parsed.problems):
                continue  # a stream had returned the reasoning as content before its end tag came, and says so
            sent, streamed = both_ways(chat, fake, text)
            assert sent == streamed, text
            assert sent == essence(parsed), text


@pytest.mark.parametrize("piece", sorted({*LITERALS, *PIECES, *NESTING}), ids=repr)
def test_no_text_is_too_deep(piece: str) -> None:
    """Hundreds of openings in one another raise nothing, and are text in the end, or a problem tells of them."""
    for head in ("", '<tool_call>{"name": "save", "arguments": {"text": ', "<think>"):
        text = head + piece * 200
        parser = StreamParser(TOOLS)
        for at in range(0, len(text), 50):
            parser.feed(text[at : at + 50])
        parser.finish()
        assert essence(parser.result) == essence(parse(text, TOOLS))
