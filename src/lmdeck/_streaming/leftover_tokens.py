"""Find what the server left of special tokens in the content.

- LM Studio ends a reasoning with a mark of its own, which it sometimes leaves in the content (mozilla-ai/any-llm #1167).
- gpt-oss's `<|channel|>analysis<|message|>The user …<|end|><|start|>assistant<|channel|>final<|message|>Hello` arrives without
  its special tokens as `analysisThe user …assistantfinalHello`, a call as `commentary to=functions.NAME json{…}`.

In a stream, such text is reported, not read: it has been returned before it is certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.offered_tools import OfferedTools
from lmdeck._responses.json_bodies import DECODE_ERRORS
from lmdeck.messages import Problem, Reply

REASONING_END = late_pattern(r"__LM_STUDIO_INTERNAL_[A-Z_]{0,60}REASONING_END_[0-9a-f]{1,64}__")
MARK_KEPT = (
    "LM Studio left its mark of the end of the reasoning in the content, which had been returned before it came."
)
ANALYSIS = "analysis"
FINAL = late_pattern(r"(?<![\s`(\[{=,“])(?<![\s(\[{=,][\"'])assistantfinal")
"""The header of the answer, directly behind the reasoning; in prose, a space, quotation mark or bracket precedes it."""
ADDRESS = "to=functions."
BEFORE_ADDRESS = late_pattern(r"\A\Z|(?:\A|(?<=\S))(?:assistant|commentary|analysis)\s?\Z")
BEFORE_BODY = ("json", "code", "commentary", "analysis")
HEADER_LIMIT = 200
HARMONY = "gpt-oss-harmony"
REASONING_KEPT = (
    "The server stripped gpt-oss's special tokens: the content before `assistantfinal` is probably reasoning."
)


def split_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning before LM Studio's mark, and the text behind it.

    Without a mark, all is text.
    """
    mark = REASONING_END.search(text)
    return ("", text) if mark is None else (text[: mark.start()], text[mark.end() :])


def leftovers(reply: Reply, tools: OfferedTools) -> Iterator[Problem]:
    """Yield a problem for reasoning, and for a call of an offered tool, in the content."""
    text = reply.content
    if REASONING_END.search(text):
        yield Problem("reasoning_unopened", MARK_KEPT)
    if text.startswith(ANALYSIS) and text[len(ANALYSIS) :][:1].isupper() and FINAL.search(text):
        yield Problem("reasoning_unopened", REASONING_KEPT, dialect=HARMONY)
    if not reply.tool_calls and (name := _called_tool(text, tools)):
        detail = f"The server stripped gpt-oss's special tokens: a call of {name!r} was left as text."
        yield Problem("tool_call_unparsed", detail, text[text.rindex(ADDRESS) :], dialect=HARMONY)


def _called_tool(text: str, tools: OfferedTools) -> str:
    """Return the tool that the last message calls, or `""`; such a message ends the text."""
    before, address, message = text.rpartition(ADDRESS)
    header, _, _ = message[:HEADER_LIMIT].partition("{")
    is_call = address and BEFORE_ADDRESS.search(before) and _is_object(message[len(header) :])
    return _tool_in(header, tools) if is_call else ""


def _tool_in(header: str, tools: OfferedTools) -> str:
    """Return the tool that a header names; other words may follow, also without a space."""
    for word in ("", *BEFORE_BODY):
        header = header.removesuffix(word).rstrip()
        if (name := tools.resolve(header)) is not None:
            return name
    return ""


def _is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except DECODE_ERRORS:
        return False
    return True
