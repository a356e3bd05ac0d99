"""A lone `</think>`: the prompt template opened the reasoning, which a stream learns when it has returned the text."""

from __future__ import annotations

import pytest

from lmdeck import StreamParser, parse
from lmdeck.testing import FakeLMStudio

TEXTS = [
    ("Paris is in France.\n</think>\n\nParis.", True),
    ("Hm.</think>\nParis.", True),
    ("Some content</think>More content", True),
    ("Hm. I see.</think>**Paris**", True),
    ("Hm.\n</think>\n\n<think></think>\n\nParis.", True),
    ("Write </think> to end it.", False),
    ("It ends with </think>.", False),
    ("Say '</think>' aloud.", False),
    ("```\na</think>b\n```", False),
    ("| tag | </think>|", False),
    ("The tag `</think>` ends it.", False),
    ("<think>Hm.</think>\nParis.", False),
    ("</think>\nParis.", False),
    ('{"html": "a</think>\\nb"}', False),
    ("Hm. I see.[/THINK]Paris.", True),
    ("Hm.\n◁/think▷\nParis.", True),
    ("Hm.<|END_THINKING|>\nParis.", True),
    ("It ends with [/THINK]\nas the page says.", False),
    ("Say `[/THINK]`aloud.", False),
]


@pytest.mark.parametrize(("text", "is_reported"), TEXTS)
def test_a_lone_end_tag_is_reported(text: str, is_reported: bool) -> None:
    codes = [problem.code for problem in parse(text).problems]
    assert codes == (["reasoning_unopened"] if is_reported else [])


@pytest.mark.parametrize(("text", "is_reported"), TEXTS)
def test_a_stream_reports_the_same(text: str, is_reported: bool) -> None:
    parser = StreamParser()
    chunks = [chunk for character in text for chunk in parser.feed(character)]
    chunks += parser.finish()
    assert parser.result == parse(text)
    assert "".join(chunk.content for chunk in chunks).strip() == parser.result.content


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("Hm. I see.</think>Paris.", "Hm. I see.", "Paris."),
        ("Hm.\n</think>\n\n<think></think>\n\nParis.", "Hm.", "Paris."),
        ("Write </think> to end it.", "", "Write </think> to end it."),
        ("Hm.[/THINK]Paris.", "Hm.", "Paris."),
        ("thought\nHm.<channel|>Paris.", "Hm.", "Paris."),
        ("Hm.<|close|>think<|sep|><|open|>response<|sep|>Paris.<|close|>response<|sep|>", "Hm.", "Paris."),
        ("It ends with [/THINK]", "", "It ends with [/THINK]"),
    ],
)
def test_a_whole_answer_is_separated(text: str, reasoning: str, content: str) -> None:
    with FakeLMStudio() as fake:
        fake.reply(text)
        reply = fake.client().chat().user("a").send()
    assert (reply.reasoning, reply.content) == (reasoning, content)


@pytest.mark.parametrize("close", ["<|END_THINKING|>", "<channel|>", "<|close|>think<|sep|>"])
def test_an_end_tag_that_is_dropped_is_reported(close: str) -> None:
    """It is a special token, which is no text where tools are offered."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    parsed = parse(f"Hm.{close}\nParis.", [tool])
    assert parsed.content.split() == ["Hm.", "Paris."]
    assert "reasoning_unopened" in [problem.code for problem in parsed.problems]
