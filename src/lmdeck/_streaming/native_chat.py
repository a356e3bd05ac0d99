"""`/api/v1/chat`: LM Studio's own events and body.

Source: LM Studio docs `2_rest/chat.md` and `streaming-events.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from lmdeck._streaming.translator import Json, completion, entries, finished, text_of, token_usage
from lmdeck._streaming.wire_chunks import Choice, Delta, WireCompletion
from lmdeck.messages import ServerCall
from lmdeck.native_events import StreamEvent, read_native_event


class NativeTranslator:
    """A translator for `/api/v1/chat`, whose tools the server runs itself."""

    def __init__(self, max_output_tokens: object = None) -> None:
        self.is_done = False
        self.is_in_call = False
        self.server_calls: list[ServerCall] = []
        self._limit = max_output_tokens
        self._has_content = False
        self._has_reasoning = False

    def typed(self, data: dict[str, Any]) -> StreamEvent:
        """Return the event as its class of `lmdeck.native_events`."""
        return read_native_event(data)

    def failure(self, data: Json) -> object:
        """Return an `error` event, the only form of a failure; otherwise None."""
        return data if data.get("type") == "error" else None

    def event(self, data: Json) -> Iterator[WireCompletion]:
        """Yield the chunks that an event means."""
        kind = str(data.get("type") or "")
        self.is_in_call = kind.startswith("tool_call.") and kind not in {"tool_call.success", "tool_call.failure"}
        match kind:
            case "chat.start":
                yield completion(model=_name(data))
            case "reasoning.delta" if text := text_of(data.get("content")):
                self._has_reasoning = True
                yield completion(Delta(reasoning_content=text))
            case "message.delta" if text := text_of(data.get("content")):
                self._has_content = True
                yield completion(Delta(content=text))
            case "tool_call.success":
                self.server_calls.append(_finished_call(data))
            case "tool_call.failure":
                self.server_calls.append(_failed_call(data))
            case "chat.end":
                yield from self._end(data.get("result"))

    def _end(self, result: object) -> Iterator[WireCompletion]:
        """Yield the parts of the whole answer for which there was no delta, and its figures."""
        answer = _object(result)
        output = entries(answer.get("output"))
        reasoning, content = _texts(output, "reasoning"), _texts(output, "message")
        if reasoning and not self._has_reasoning:
            yield completion(Delta(reasoning_content=reasoning))
        if content and not self._has_content:
            yield completion(Delta(content=content))
        if output:
            self.server_calls = _calls(output)
        self.is_done = True
        yield finished(self._finish_reason(answer), **_head(answer))

    def body(self, body: Json) -> WireCompletion | None:
        """Return the chunk that a whole body means; None if it is not a body of this endpoint."""
        if not isinstance(body.get("output"), list):
            return None
        output = entries(body["output"])
        self.server_calls = _calls(output)
        message = Delta(content=_texts(output, "message"), reasoning_content=_texts(output, "reasoning"))
        return WireCompletion(choices=[Choice(message=message, finish_reason=self._finish_reason(body))], **_head(body))

    def _finish_reason(self, result: Json) -> str:
        """Return `length` if the token limit was reached.

        LM Studio does not report the reason on this endpoint.
        """
        stats = result.get("stats")
        count = stats.get("total_output_tokens") if isinstance(stats, Mapping) else None
        if isinstance(self._limit, int) and isinstance(count, (int, float)) and count >= self._limit:
            return "length"
        return "stop"


def _head(result: Json) -> dict[str, Any]:
    stats = result.get("stats")
    return {
        "id": str(result.get("response_id") or ""),
        "model": _name(result),
        "usage": token_usage(stats),
        "stats": _figures(stats),
    }


def _figures(stats: object) -> Raw:
    if not isinstance(stats, Mapping):
        return Raw()
    names = {
        "tokens_per_second": "tokens_per_second",
        "time_to_first_token_seconds": "time_to_first_token",
        "model_load_time_seconds": "model_load_time",
    }
    return Raw(msgspec.json.encode({ours: stats[theirs] for theirs, ours in names.items() if theirs in stats}))


def _name(data: Json) -> str:
    return str(data.get("model_instance_id") or "")


def _texts(output: list[Json], kind: str) -> str:
    return "".join(text_of(item.get("content")) for item in output if item.get("type") == kind)


def _calls(output: list[Json]) -> list[ServerCall]:
    readers = {"tool_call": _finished_call, "invalid_tool_call": _failed_call}
    return [reader(item) for item in output if (reader := readers.get(str(item.get("type"))))]


def _finished_call(item: Json) -> ServerCall:
    return ServerCall(
        name=str(item.get("tool") or ""),
        arguments=_object(item.get("arguments")),
        output=text_of(item.get("output")),
        provider=_object(item.get("provider_info")),
    )


def _failed_call(item: Json) -> ServerCall:
    metadata = _object(item.get("metadata"))
    return ServerCall(
        name=str(metadata.get("tool_name") or ""),
        arguments=_object(metadata.get("arguments")),
        provider=_object(metadata.get("provider_info")),
        error=str(item.get("reason") or metadata.get("type") or "the call was invalid"),
    )


def _object(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
