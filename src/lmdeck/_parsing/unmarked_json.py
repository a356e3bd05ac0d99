"""Calls without any marker: JSON that stands alone, names an offered tool and gives it arguments.

JSON is what a model may as well have been asked for, so this is the strictest reader: the first key must name the tool, and at
the first thing that a call would not have the text is an answer.
"""

from __future__ import annotations

from lmdeck._parsing.json_calls import json_call, json_calls
from lmdeck._parsing.sink import Calls
from lmdeck._parsing.source import NotACall, Reader, Source, stops

__all__ = ["bare_json", "begins_bare"]

ENDS = stops("<|eom_id|>", "<|eot_id|>")
LOOKAHEAD = 200


def begins_bare(source: Source, kinds: str) -> Reader[bool]:
    """Tell whether a brace, or a bracket with a brace in it, is what comes."""
    if source.text[source.at] == "{":
        return "{" in kinds
    while True:
        rest = source.text[source.at + 1 : source.at + LOOKAHEAD].lstrip()
        if rest or source.closed or len(source.text) - source.at > LOOKAHEAD:
            return rest.startswith("{")
        yield


def bare_json(source: Source, calls: Calls) -> Reader[None]:
    """Read bare calls: one, several separated by semicolons or commas, or an array."""
    made = len(calls.made)
    while True:
        char = yield from source.skip_space()
        if char == "[" and len(calls.made) == made:
            yield from json_calls(source, calls, ENDS, strictly=True)
        elif char == "{":
            yield from json_call(source, calls, ENDS, strictly=True)
        elif char and char in ";," and len(calls.made) > made:
            source.at += 1
            continue
        else:
            if len(calls.made) == made:
                raise NotACall
            yield from source.take(ENDS)
            return
        source.mark()
