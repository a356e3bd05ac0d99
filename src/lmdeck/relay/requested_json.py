"""Extraction of requested JSON, which models wrap in prose or code, or put in reasoning.

An answer to a request with `response_format` is passed on immediately if it starts like JSON. Otherwise it is held back
until its end: the JSON found in it becomes the answer; without any, the text stays the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from lmdeck._chunks import Chunk
from lmdeck._parsing.structured_output import json_values
from lmdeck._streaming.chat_reader import Observer
from lmdeck.errors import ConfigurationError
from lmdeck.messages import Problem, Reply
from lmdeck.tools.checker import Checker

__all__ = ["RequestedJson"]

_BEGINNINGS = ("{", "[")


class RequestedJson:
    """The extraction of JSON from one answer; an empty `schema` accepts any object."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._checker = Checker(schema, "The requested format")
        self._held: list[str] = []
        self._is_json = False

    def observing(self, observe: Observer) -> Observer:
        """Return an observer of a stream that gets content only after it is known to be JSON."""

        def observe_json(data: bytes, chunks: Sequence[Chunk]) -> None:
            observe(data, [each for chunk in chunks if (each := self._without_held_text(chunk)) is not None])

        return observe_json

    def _without_held_text(self, chunk: Chunk) -> Chunk | None:
        if self._is_json or not chunk.content:
            return chunk
        self._held.append(chunk.content)
        beginning = (
            "".join(self._held) if len(self._held) < 100 else "…"
        )  # bounded: models can send endless white space
        self._is_json = beginning.lstrip().startswith(_BEGINNINGS)
        if self._is_json:
            self._held.clear()
            return replace(chunk, content=beginning)
        return replace(chunk, content="") if chunk.logprobs or chunk.finish_reason else None

    def found(self, reply: Reply) -> tuple[Reply, str]:
        """Return the reply with the requested JSON, and the part of it that was not written yet."""
        if reply.tool_calls or self._is_json or _is_json(reply.content):
            return reply, "".join(self._held)
        for place, text in (("within the text of the answer", reply.content), ("in the reasoning", reply.reasoning)):
            for value, _ in json_values(text):
                if isinstance(value, (dict, list)) and self._fits(value):
                    problem = Problem("structured", f"The JSON was found {place}.")
                    written = msgspec.json.encode(value).decode()
                    others = [each for each in reply.problems if each.code != "reasoning_only"]
                    return replace(reply, content=written, problems=[*others, problem]), written
        return reply, "".join(self._held)

    def _fits(self, value: object) -> bool:
        try:
            return not self._checker.errors(value)
        except ConfigurationError:  # the schema is invalid, but LM Studio accepted it
            return True


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True
