"""`/v1/responses`: OpenAI's Responses events and body, as LM Studio sends them.

Sources: LM Studio docs `3_openai-compat/responses.md`, OpenAI's Responses API reference. Reasoning arrives as
`response.reasoning_text.*`, whose `done` may have no delta before it (lmstudio-bug-tracker). llama.cpp's events have an
`item_id` and no `output_index`; those of other servers have either, neither, or an id that changes with each event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from lmdeck._responses.json_bodies import DECODE_ERRORS
from lmdeck._streaming.translator import (
    Json,
    as_raw,
    call_delta,
    completion,
    entries,
    finished,
    text_of,
    token_usage,
    untyped,
)
from lmdeck._streaming.wire_chunks import Choice, Delta, WireCompletion
from lmdeck.messages import ServerCall
from lmdeck.native_events import StreamEvent

CONTENT = ("response.output_text", "response.refusal")
REASONING = ("response.reasoning_text", "response.reasoning_summary_text", "response.reasoning")
TEXTS = CONTENT + REASONING
ENDS = ("response.completed", "response.incomplete")
ARGUMENTS = "response.function_call_arguments"


class ResponsesTranslator:
    """A translator for `/v1/responses`.

    Text that arrived as deltas is not read again from `done` or the whole response.
    """

    def __init__(self) -> None:
        self.is_done = False
        self.is_in_call = False
        self.server_calls: list[ServerCall] = []
        self._seen: set[object] = set()
        self._items = _ItemNumbers()

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Return the event under OpenAI's name."""
        return untyped(data)

    def failure(self, data: Json) -> object:
        """Return the error of a failed response; otherwise None."""
        if data.get("type") == "error":
            return data
        response = _response(data)
        if data.get("type") != "response.failed":
            return None
        return {"error": response.get("error") or {"message": "The response failed.", "type": "server_error"}}

    def event(self, data: Json) -> Iterator[WireCompletion]:
        """Yield the chunks that an event means."""
        kind = str(data.get("type") or "")
        name, _, stage = kind.rpartition(".")
        if kind in ENDS:
            yield from self._end(_response(data), data.get("timings"))
        elif kind == "response.created":
            response = _response(data)
            yield completion(id=str(response.get("id") or ""), model=str(response.get("model") or ""))
        elif kind in {"response.output_item.added", "response.output_item.done"}:
            yield from self._item(data, is_done=stage == "done")
        elif name == ARGUMENTS:
            yield from self._arguments(data, stage)
        elif name in TEXTS:
            yield from self._text(data, name, stage)
        elif kind == "response.content_part.done" and isinstance(part := data.get("part"), Mapping):
            yield from self._text({**data, **part}, f"response.{part.get('type')}", stage)

    def _text(self, data: Json, name: str, stage: str) -> Iterator[WireCompletion]:
        place = (self._items.of([data.get("item_id")], data.get("output_index")), name in REASONING)
        text = text_of(data.get("delta") if stage == "delta" else data.get("text", data.get("refusal")))
        if name not in TEXTS or not text or (stage == "done" and place in self._seen) or stage not in {"delta", "done"}:
            return
        self._seen.add(place)
        delta = Delta(reasoning_content=text) if name in REASONING else Delta(content=text)
        yield completion(delta, data.get("logprobs"))

    def _arguments(self, data: Json, stage: str) -> Iterator[WireCompletion]:
        index = self._items.of([data.get("item_id")], data.get("output_index"), of_open_item=True)
        place = (index, "arguments")
        arguments = data.get("delta") if stage == "delta" else data.get("arguments")
        is_server_call = (index, "server") in self._seen
        if not arguments or is_server_call or (stage == "done" and place in self._seen):
            return
        self._seen.add(place)
        yield completion(Delta(tool_calls=[call_delta(index, arguments=arguments)]))

    def _item(self, data: Json, *, is_done: bool) -> Iterator[WireCompletion]:
        item = data.get("item")
        if not isinstance(item, Mapping):
            return
        self.is_in_call = not is_done and str(item.get("type")).endswith("_call")
        index = self._items.of(_ids(item), data.get("output_index"), opens=not is_done, of_open_item=True)
        if is_done:
            self._items.close()
        if item.get("type") == "function_call":
            yield from self._call(item, index, is_done=is_done)
        elif is_done:
            yield from self._rest(item, index)
        else:  # a call that the server runs itself is not a tool call of the reply
            self._seen.add((index, "server"))

    def _call(self, item: Json, index: int | None, *, is_done: bool) -> Iterator[WireCompletion]:
        """Yield the start of a call once, and the item's arguments unless an event contained them."""
        start, body = (index, "call"), (index, "arguments")
        arguments = item.get("arguments") if body not in self._seen and (is_done or item.get("arguments")) else None
        if start in self._seen and not arguments:
            return
        name = None if start in self._seen else str(item.get("name") or "")
        self._seen.add(start)
        if arguments:
            self._seen.add(body)
        delta = call_delta(index, item.get("call_id") or item.get("id"), name, arguments)
        yield completion(Delta(tool_calls=[delta]))

    def _rest(self, item: Json, index: int | None) -> Iterator[WireCompletion]:
        """Yield the text of a finished item that no event contained.

        An event without an item covers all items of its kind.
        """
        match item.get("type"):
            case "message" if not self._seen & {(index, False), (None, False)} and (text := _content(item)):
                self._seen.add((index, False))
                yield completion(Delta(content=text), _logprobs(item))
            case "reasoning" if not self._seen & {(index, True), (None, True)} and (text := _reasoning(item)):
                self._seen.add((index, True))
                yield completion(Delta(reasoning_content=text))

    def _end(self, response: Json, timings: object) -> Iterator[WireCompletion]:
        output = entries(response.get("output"))
        for position, item in enumerate(output):
            index = self._items.at_end(_ids(item), position)
            if item.get("type") == "function_call":
                yield from self._call(item, index, is_done=True)
            else:
                yield from self._rest(item, index)
        self.server_calls = _server_calls(output)
        self.is_done = True
        yield finished(_reason(response), **_head(response), timings=as_raw(timings))

    def body(self, body: Json) -> WireCompletion | None:
        """Return the chunk that a whole body means; None if it is not a body of this endpoint."""
        if not isinstance(body.get("output"), list):
            return None
        output = entries(body["output"])
        self.server_calls = _server_calls(output)
        calls = [
            call_delta(index, item.get("call_id") or item.get("id"), str(item.get("name") or ""), item.get("arguments"))
            for index, item in enumerate(output)
            if item.get("type") == "function_call"
        ]
        message = Delta(
            content="".join(_content(item) for item in output if item.get("type") == "message"),
            reasoning_content="".join(_reasoning(item) for item in output if item.get("type") == "reasoning"),
            tool_calls=calls or None,
        )
        logprobs = [entry for item in output if item.get("type") == "message" for entry in _logprobs(item)]
        return WireCompletion(
            choices=[Choice(message=message, finish_reason=_reason(body), logprobs=logprobs)],
            **_head(body),
            timings=as_raw(body.get("timings")),
        )


class _ItemNumbers:
    """Consecutive numbers of the items of an answer, by an item's ids, else by its index."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}
        self._count = 0
        self._open: int | None = None

    def of(
        self, ids: Iterable[object], index: object, *, opens: bool = False, of_open_item: bool = False
    ) -> int | None:
        """Return the number of an event's item, or None if the event does not name an item.

        `opens` marks the event that begins an item. With `of_open_item`, an event without a known item belongs to the open one.
        """
        names, position = _texts(ids), index if isinstance(index, int) else None
        if not names and position is None and not of_open_item:
            return None
        place = self._known(names)
        if place is None and not opens:
            place = self._by_index.get(position) if position is not None else self._open if of_open_item else None
        if place is None:
            place, self._count = self._count, self._count + 1
        if position is not None:
            self._by_index[position] = place
        self._by_id |= dict.fromkeys(names, place)
        if opens or not (names or position is not None):
            self._open = place
        return place

    def close(self) -> None:
        """Record the end of the open item."""
        self._open = None

    def at_end(self, ids: Iterable[object], position: int) -> int:
        """Return the number of an item of the whole answer: by ids, else index, else position."""
        known = self._known(_texts(ids))
        return self._by_index.get(position, position) if known is None else known

    def _known(self, names: Iterable[str]) -> int | None:
        return next((self._by_id[name] for name in names if name in self._by_id), None)


def _ids(item: Json) -> tuple[object, object]:
    """Return the ids by which events name an item.

    llama.cpp names a call by its `call_id` (ggml-org/llama.cpp#21174).
    """
    return item.get("id"), item.get("call_id")


def _texts(ids: Iterable[object]) -> list[str]:
    return [id_ for id_ in ids if isinstance(id_, str) and id_]


def _response(data: Json) -> Json:
    response = data.get("response")
    return response if isinstance(response, Mapping) else {}


def _head(response: Json) -> dict[str, Any]:
    return {
        "id": str(response.get("id") or ""),
        "model": str(response.get("model") or ""),
        "usage": token_usage(response.get("usage")),
    }


def _reason(response: Json) -> str:
    if response.get("status") != "incomplete":
        return "stop"
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    return "length" if reason in (None, "max_output_tokens", "max_tokens") else str(reason)


def _content(item: Json) -> str:
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(text_of(part.get("text", part.get("refusal"))) for part in entries(content))


def _logprobs(item: Json) -> list[Json]:
    return [entry for part in entries(item.get("content")) for entry in entries(part.get("logprobs"))]


def _reasoning(item: Json) -> str:
    return text_of(item.get("content")) or text_of(item.get("summary"))


def _server_calls(output: list[Json]) -> list[ServerCall]:
    return [
        ServerCall(
            id=str(item.get("id") or ""),
            name=str(item.get("name") or ""),
            arguments=_decoded(item.get("arguments")),
            output=text_of(item.get("output")),
            provider={"type": "mcp", "server_label": item.get("server_label")},
            error=str(item["error"]) if item.get("error") else None,
        )
        for item in output
        if item.get("type") == "mcp_call"
    ]


def _decoded(arguments: object) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except DECODE_ERRORS:
            return {}
    return dict(arguments) if isinstance(arguments, Mapping) else {}
