"""The requests that the fake received, typed, for all endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

ANSWERING = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/v1/decisions",
    "/v1/systemone",
    "/v1/responses",
    "/v1/messages",
    "/api/v1/chat",
)


class ToolUse(Struct, frozen=True, kw_only=True):
    """A tool call that the application answered, with its arguments and result.

    It is read from the application's next request.
    """

    name: str
    arguments: Mapping[str, Any]
    result: str | None = None


class SentRequest(Struct, frozen=True, kw_only=True):
    """One request that the fake received.

    `headers` have lower-case names and no secrets; `body` is the decoded JSON object, or empty. `connection` is the number of
    the connection, counted from 0.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    connection: int = 0

    @property
    def wants_answer(self) -> bool:
        """Whether a model has to answer; listing, loading and downloading models do not need one."""
        return self.path.endswith(ANSWERING)

    @property
    def model(self) -> str | None:
        """The requested model."""
        model = self.body.get("model")
        return model if isinstance(model, str) else None

    @property
    def stream(self) -> bool:
        """Whether a streamed answer was requested."""
        return self.body.get("stream") is True

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The history: `messages`, or `input` as messages."""
        value = self.body.get("messages", self.body.get("input"))
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        items = [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
        return [item if "role" in item or "type" not in item else {"role": "user", **item} for item in items]

    @property
    def last_user(self) -> str:
        """The text of the last user message; empty if there is none."""
        texts = [text_of(each.get("content")) for each in self.messages if each.get("role") == "user"]
        return texts[-1] if texts else ""

    @property
    def system(self) -> str:
        """The system prompt, in the format of any endpoint."""
        for name in ("system_prompt", "instructions", "system"):
            if self.body.get(name):
                return text_of(self.body[name])
        return "\n\n".join(text_of(each.get("content")) for each in self.messages if each.get("role") == "system")

    @property
    def tools(self) -> list[str]:
        """The names of the offered tools."""
        value = self.body.get("tools")
        tools = [tool for tool in value if isinstance(tool, Mapping)] if isinstance(value, list) else []
        return [str(_function(tool).get("name") or tool.get("server_label") or "") for tool in tools]

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The requested JSON Schema of the answer; None if there is none."""
        form = self.body.get("response_format")
        if isinstance(form, Mapping) and isinstance(form.get("json_schema"), Mapping):
            found = form["json_schema"].get("schema")
        else:
            text = self.body.get("text")
            found = text.get("format", {}).get("schema") if isinstance(text, Mapping) else None
        return found if isinstance(found, Mapping) else None

    @property
    def tool_uses(self) -> list[ToolUse]:
        """The tool calls in the history, each with its result if there is one."""
        results = dict(_results(self.messages))
        return [
            ToolUse(name=name, arguments=arguments, result=results.get(call_id))
            for call_id, name, arguments in self._calls()
        ]

    @property
    def brings_tool_result(self) -> bool:
        """Whether the last message is the result of a tool call."""
        return any(_results(self.messages[-1:]))

    def _calls(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for message in self.messages:
            for call in message.get("tool_calls") or ():
                function = _function(call)
                yield str(call.get("id")), str(function.get("name")), _decoded(function.get("arguments"))
            if message.get("type") == "function_call":
                yield str(message.get("call_id")), str(message.get("name")), _decoded(message.get("arguments"))
            for block in _blocks(message, "tool_use"):
                yield str(block.get("id")), str(block.get("name")), _decoded(block.get("input"))

    def __str__(self) -> str:
        """Return a one-line description."""
        text = self.last_user.replace("\n", " ")
        shown = f" {text[:77] + '…' if len(text) > 78 else text!r}" if text else ""
        return f"{self.method} {self.path}{shown}{' (streamed)' if self.stream else ''}"


def text_of(content: object) -> str:
    """Return the text of a message's content, with parts joined."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))


def _results(messages: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the results of tool calls: the id of the call, and the text."""
    for message in messages:
        if message.get("role") == "tool":
            yield str(message.get("tool_call_id")), text_of(message.get("content"))
        if message.get("type") == "function_call_output":
            yield str(message.get("call_id")), text_of(message.get("output"))
        for block in _blocks(message, "tool_result"):
            yield str(block.get("tool_use_id")), text_of(block.get("content"))


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else tool


def _blocks(message: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    return [block for block in blocks if block.get("type") == kind]


def _decoded(arguments: object) -> Mapping[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except msgspec.DecodeError:
            return {}
    return arguments if isinstance(arguments, Mapping) else {}
