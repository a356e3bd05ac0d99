"""Find markup of calls in content: calls that no reader could read, reported as a `Problem`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lmdeck._late_patterns import late_pattern

CODE = late_pattern(
    r"^(`{3,}|~{3,})[^\n]*\n(?:.*?^\1|.*)|`[^`\n]*`|^(?: {4}|\t| {0,3}[>|])[^\n]*$", re.MULTILINE | re.DOTALL
)
MARK = (
    r"</?[|｜‖][^<>\n]{1,60}>|<[a-z_]{3,30}\|>|<escape>|\]<\]minimax\[>\[|\[/?(?:TOOL_CALLS?|ARGS|(?:END_)?TOOL_REQUEST)\]"
    r"|</?(?:[a-z]+[:|_])*(?:tool_?(?:calls?|use)|function(?:_?calls?)?|invoke|parameter|param|arg_key|arg_value|TOOLCALL)\b[^<>\n]{0,80}>"
    r"|functools\s?(?=\[)|>>>(?=\w)|```tool_code|\bcall:\s?(?=\w+\s?[{(])"
)
NAME_TAG = r"<(?:tool_|function_)?name>"
PARAGRAPHS = late_pattern(r"\n[^\S\n]*\n")
INSIDE = late_pattern(
    r"</?(?:[a-z]+[:|_])*(?:parameter|param|arg_key|arg_value)\b[^<>\n]{0,80}>|</?[|｜‖]{1,2}(?:DS|GC)ML[^<>\n]{1,60}>"
    r"|\]<\]minimax\[>\[|<\|(?:open|close)\|>|<[|｜][^<>\n]{0,30}(?:argument|tool_name|tool_call:|tool▁sep|tool_sep)[^<>\n]{0,30}>"
)


def unread_call_markup(text: str, names: Iterable[str]) -> str:
    """Return call markup in a text, outside of code; else `""`.

    Markup counts as a call next to a tool's name, or if it has two parts of arguments.
    """
    if "<" not in text and "[" not in text and ">" not in text and "call:" not in text:
        return ""
    code_spans = CODE.sub(" ", text)
    inside = list(INSIDE.finditer(code_spans))[:2]
    if len(inside) == 2:
        return inside[0].group()
    tools = "|".join(map(re.escape, names))
    partial = rf"\s{{0,9}}{NAME_TAG}\s{{0,9}}(?:[^<\n]{{0,100}}\Z|(?:{tools})\b)"
    around = rf"(?:{MARK})(?:\s{{0,9}}<?(?:functions?[.:])?(?:{tools})\b|{partial})|\b(?:{tools})\s{{0,9}}(?:{MARK})"
    written = rf"[\"'](?:tool_)?name[\"']?\s{{0,9}}[:=]\s{{0,9}}[\"'](?:{tools})[\"']"
    if found := re.search(around, code_spans):
        return found.group()
    for paragraph in PARAGRAPHS.split(code_spans):
        if (found := re.search(MARK, paragraph)) and re.search(written, paragraph):
            return found.group()
    return ""
