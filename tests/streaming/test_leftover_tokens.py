"""Special tokens that the server left in the content or stripped from it: they are reported, and prose is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._parsing.parser import StreamParser
from lmdeck._streaming.assembler import ChatAssembler
from lmdeck._streaming.chat_reader import ChatReader
from lmdeck.messages import Reply

TOOLS = [{"name": "save", "parameters": {"properties": {"text": {"type": "string"}}}}]
CALLED = '{"text": "Rome"}'


def event(**delta: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def answered(text: str, *, is_streamed: bool, tools: list[dict[str, Any]]) -> Reply:
    offered = OfferedTools(tools)
    target = ChatReader(200, {}, ChatAssembler(text_parser=StreamParser(offered), tools=offered))
    if is_streamed:
        for char in text:
            target.feed(event(content=char))
        target.feed(b"data: [DONE]\n\n")
    else:
        target.feed(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode())
    target.finish()
    return target.reply()


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("analysisThe user says hi. Answer.assistantfinalHello!", ["reasoning_unopened"]),
        ('analysisUser says hi. Say "Hello!"assistantfinalHello!', ["reasoning_unopened"]),
        (f"commentary to=functions.save json{CALLED}", ["tool_call_unparsed"]),
        (f"to=functions.save json{CALLED}", ["tool_call_unparsed"]),
        (f"assistant to=functions.savecommentary json{CALLED}", ["tool_call_unparsed"]),
        (f"analysisWe need it.assistantcommentary to=functions.savejson{CALLED}", ["tool_call_unparsed"]),
        (f"Let me look.\nassistantcommentary to=functions.save code{CALLED}", ["tool_call_unparsed"]),
        (f"Two.assistantcommentary to=functions.save{CALLED}assistantcommentary to=functions.save{CALLED}",
         ["tool_call_unparsed"]),
        ("analysisThe user says hi. Answer.", []),
        ("analysis of the text: assistantfinal comes last.", []),
        ("Analysis: gpt-oss writes analysis, commentary and final; without tokens, `assistantfinal` remains.", []),
        ('analysisResult = text.split("assistantfinal")', []),
        ("analysisParts are what precedes assistantfinal in the text.", []),
        (f"gpt-oss writes commentary to=functions.save json{CALLED}", []),
        (f"`commentary to=functions.save json{CALLED}`", []),
        (f"```\ncommentary to=functions.save json{CALLED}\n```", []),
        ("commentary to=functions.save json{...}", []),
        ("commentary to=functions.save", []),
        (f"commentary to=functions.other json{CALLED}", []),
        (f"commentary to=functions.save json{CALLED} is how it calls.", []),
    ],
)  # fmt: skip
def test_messages_without_their_tokens_are_reported(text: str, codes: list[str], is_streamed: bool) -> None:
    """The content stays as it is; prose and code that mention such messages are not reported."""
    reply = answered(text, is_streamed=is_streamed, tools=TOOLS)
    assert (reply.content, reply.reasoning, reply.tool_calls) == (text, "", [])
    assert [problem.code for problem in reply.problems] == codes
    assert all(problem.raw.endswith(CALLED) for problem in reply.problems if problem.raw)
    assert [problem.code for problem in answered(text, is_streamed=is_streamed, tools=[]).problems] == [
        code for code in codes if code == "reasoning_unopened"
    ]
