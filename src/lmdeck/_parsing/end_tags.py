"""End tags directly after a call, and the start of one at the end of the text.

Superfluous ones are dropped and reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lmdeck._late_patterns import late_pattern
from lmdeck._parsing.sink import Sink
from lmdeck._parsing.source import Reader, Source

# Servers with the wrong list of stop tokens also leave the token that ends the model's turn.
END_OF_CALL = late_pattern(
    r"(?:\]<\]minimax\[>\[)?</(?=[^<>\n]*?(?:tool|call|function|invoke|action|param))[^<>\n]{1,60}>"
    r"|<(?=[^<>\n]*?(?:tool|call|action|function))(?:[|｜][^<>\n]{0,40}end[^<>\n]{0,40}[|｜]|[a-z_]{1,40}\|)>"
    r"|\[(?:/|END_)(?:TOOL|FUNCTION)[A-Z_]{0,20}\]"
    r"|<[|｜](?:im_end|end_?of_?text|end[_▁]of[_▁](?:turn|sentence)|eo[mst](?:_id)?)[|｜]>|</s>|<eos>|<end_of_turn>",
    re.IGNORECASE,
)
PARTIAL_END_OF_CALL = late_pattern(
    r"(?:\]<\]minimax\[>\[)?<[^<>\n]{0,80}\Z|\](?:<(?:\](?:m[a-z]*(?:\[(?:>\[?)?)?)?)?)?\Z|\[[A-Z_/]{0,30}\Z|`{1,2}\Z|>{1,2}\Z",
    re.IGNORECASE,
)
CUT_TAG = late_pattern(r"\]<[\]\[>a-z]*\Z|(?:\]<\]minimax\[>\[)?[<\[][/|｜]?[\w:|｜▁ ]{0,40}\Z|`{1,2}\Z|>{1,2}\Z")
CUT_LENGTH = 80


def skip_end_tags(source: Source, sink: Sink, markers: Iterable[str]) -> Reader[None]:
    """Skip end tags directly after a call; `markers` begin the next one."""
    while True:
        yield from source.pass_space(sink.emit_content)
        found = END_OF_CALL.match(source.text, source.at)
        if found:
            drop_end_tag(source, sink, found.group())
            continue
        rest = source.text[source.at : source.at + CUT_LENGTH]
        if not (PARTIAL_END_OF_CALL.match(rest) or _begins_marker(rest, markers)):
            return
        if source.closed:
            if CUT_TAG.match(rest) or _begins_marker(rest, markers):
                _drop_cut_tag(source, sink, rest, begins_call=len(rest) > 1 and _begins_marker(rest, markers))
            return
        yield


def drop_end_tag(source: Source, sink: Sink, tag: str) -> None:
    """Drop an end tag that does not belong to a call, and report it."""
    place = source.place
    source.at += len(tag)
    name = sink.completed[-1].name
    sink.report("repaired", f"After the call of {name!r}: a superfluous {tag}", tag, (place, source.place))
    sink.defer_space()


def _drop_cut_tag(source: Source, sink: Sink, tag: str, *, begins_call: bool) -> None:
    """Drop the start of a tag at the end of the text, and report it."""
    place = source.place
    source.at += len(tag)
    code = "tool_call_incomplete" if begins_call else "repaired"
    what = "A call" if begins_call else f"The end of the call of {sink.completed[-1].name!r}"
    sink.report(code, f"{what} is cut off: {tag}", tag, (place, source.place))


def _begins_marker(rest: str, markers: Iterable[str]) -> bool:
    """Whether the rest of the text is the start of a call marker, but not a whole marker."""
    return bool(rest) and any(marker.startswith(rest) and marker != rest for marker in markers)
