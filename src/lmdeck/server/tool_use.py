"""LM Studio's *default tool use* for any text model.

It makes tools work without support in the chat template. As documented (`3_openai-compat/tools.mdx`), the tools and the format
of a call are part of the system prompt, `tool` messages become `user` messages, and the assistant's calls are written in the
same format. LM Studio's docs show the markers of a request and mention `[TOOL_RESULT]` without an example; its markers follow
those of the request. For `tool_choice: "required"` the model decodes under a grammar that allows exactly one call.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from lmdeck._encoders.backend_events import Finished, LoadProgress, TextDelta, ToolCallOpened
from lmdeck.server.backend import BackendError
from lmdeck.server.decision_text import decision_prompt
from lmdeck.server.jobs import DownloadState
from lmdeck.server.text_model import Constraint, Generation, Turn
from lmdeck.server.tool_text import CLOSE, OPEN, CallFinder, ConstrainedCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence

    from lmdeck._encoders.backend_events import BackendEvent
    from lmdeck.server.jobs import (
        ChatJob,
        ChatMessage,
        ChatTool,
        CompletionJob,
        Decided,
        DecisionJob,
        Embedded,
        EmbeddingJob,
        EngineRuntime,
        Loaded,
        LoadJob,
        ModelDescription,
    )
    from lmdeck.server.text_model import Piece, TextModel

MAX_ARGUMENT_CHARS = 256
MAX_ARGUMENT_ITEMS = 16
MAX_ARGUMENT_INTEGER = 10**12
"""Limits for strings, arrays and integers of a constrained call.

They apply where its schema has none, so that the call ends.
"""

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": True}
"""Options of llguidance.

They allow no optional white space, which small models repeat endlessly, and ignore unknown keywords.
"""


class DefaultToolUse:
    """A back end that adds tool calls to a model that only generates text."""

    def __init__(self, model: TextModel) -> None:
        self._model = model

    @property
    def runtime(self) -> EngineRuntime:
        """The name and version of the engine."""
        return self._model.runtime

    def models(self) -> Sequence[ModelDescription]:
        """Return the available models, the default one first."""
        return self._model.models()

    def chat(self, job: ChatJob) -> AsyncGenerator[BackendEvent, None]:
        """Answer a chat.

        Raises:
            BackendError: The chat contains images or needs server-side tools, or the model refuses the request.
        """
        if job.integrations:
            raise BackendError(
                "This server does not run tools itself: it has no plugins. Send the request without `integrations`.",
                type="not_implemented",
            )
        if any(message.images for message in job.messages):
            raise BackendError("Model does not support images. Please use a model that does.")
        offered = job.tools if job.tool_choice != "none" else ()
        required = bool(offered) and job.tool_choice == "required"
        if required:
            constraint: Constraint | None = Constraint("lark", call_grammar(offered))
        else:
            constraint = None if job.json_schema is None else Constraint("json_schema", _schema_text(job.json_schema))
        generation = Generation(
            model=job.model,
            prompt=tuple(render_history(job.messages, offered)),
            sampling=job.sampling,
            constraint=constraint,
        )
        pieces = self._model.generate(generation)
        if not offered:
            return _text_events(pieces)
        return _events(pieces, ConstrainedCall() if required else CallFinder())

    def complete(self, job: CompletionJob) -> AsyncGenerator[BackendEvent, None]:
        """Continue a prompt.

        Raises:
            BackendError: The model refuses the request.
        """
        return _text_events(self._model.generate(Generation(model=job.model, prompt=job.prompt, sampling=job.sampling)))

    async def embed(self, job: EmbeddingJob) -> Embedded:
        """Return one vector for each text.

        Raises:
            BackendError: The model refuses the request.
        """
        return await self._model.embed(job)

    async def decide(self, job: DecisionJob) -> Decided:
        """Answer typed questions, each as a choice between letters.

        Raises:
            BackendError: There are images or more options than letters, or the model refuses the request.
        """
        if job.images:
            raise BackendError("Model does not support images. Please use a model that does.")
        return await self._model.decide(job.model, [decision_prompt(job.text, each) for each in job.questions])

    async def load(self, job: LoadJob) -> Loaded:
        """Load a model.

        Raises:
            BackendError: The model refuses the request.
        """
        return await self._model.load(job)

    async def unload(self, instance_id: str) -> None:
        """Unload an instance.

        Raises:
            BackendError: The model refuses the request.
        """
        await self._model.unload(instance_id)

    async def download(self, model: str, quantization: str | None = None) -> DownloadState:
        """Return `already_downloaded` for an available model.

        Raises:
            BackendError: The model is not available; this server does not download models.
        """
        if any(model == described.key for described in self.models()):
            return DownloadState(status="already_downloaded")
        raise BackendError(
            f"This server does not download models, and {model} is not available.", status=404, type="model_not_found"
        )

    async def download_state(self, job_id: str) -> DownloadState:
        """Refuse the request: there are no downloads.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"There is no download job {job_id}.", status=404, type="job_not_found")


async def _text_events(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[BackendEvent, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            yield TextDelta(piece) if isinstance(piece, str) else piece


async def _events(
    pieces: AsyncGenerator[Piece, None], reader: CallFinder | ConstrainedCall
) -> AsyncGenerator[BackendEvent, None]:
    has_called = False
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, LoadProgress):
                yield piece
                continue
            for event in reader.feed(piece) if isinstance(piece, str) else reader.finish():
                has_called = has_called or isinstance(event, ToolCallOpened)
                yield event
            if isinstance(piece, Finished):
                ended_by_call = has_called and piece.stop_reason in {"eosFound", "stopStringFound"}
                yield msgspec.structs.replace(piece, stop_reason="toolCalls") if ended_by_call else piece


# --- the prompt ---


def render_history(messages: Iterable[ChatMessage], tools: Sequence[ChatTool] = ()) -> Iterator[Turn]:
    """Yield a history in the roles that every chat template supports.

    The tools are in the system prompt.
    """
    groups = [(role, list(group)) for role, group in groupby(messages, key=_plain_role)]
    if tools and (not groups or groups[0][0] != "system"):
        yield Turn("system", tool_prompt(tools))
    for index, (role, group) in enumerate(groups):
        if role == "system" and index == 0 and tools:
            yield Turn("system", "\n\n".join([*(message.text for message in group), tool_prompt(tools)]))
        elif role == "tool":  # one message for all results: many templates require user and assistant to alternate
            yield Turn("user", "\n".join(f"[TOOL_RESULT]{message.text}[END_TOOL_RESULT]" for message in group))
        else:
            yield from (Turn(role, _with_calls(message)) for message in group)


def _plain_role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _with_calls(message: ChatMessage) -> str:
    calls = (f'{OPEN}{{"name": {json.dumps(c.name)}, "arguments": {c.arguments}}}{CLOSE}' for c in message.tool_calls)
    return "\n".join([*([message.text] if message.text or not message.tool_calls else []), *calls])


def tool_prompt(tools: Iterable[ChatTool]) -> str:
    """Return the system prompt of LM Studio's default tool use."""
    listing = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]
    offered = json.dumps({"type": "toolArray", "tools": listing}, indent=2, ensure_ascii=False)
    return f"""\
You are a tool-calling AI. You can request calls to available tools with this EXACT format:
{OPEN}{{"name": "tool_name", "arguments": {{"param1": "value1"}}}}{CLOSE}

AVAILABLE TOOLS:
{offered}

RULES:
- Only use tools from AVAILABLE TOOLS
- Include all required arguments
- Use one {OPEN} block per tool
- Never use [TOOL_RESULT]
- If you decide to call one or more tools, there should be no other text in your message

Examples:
"Check Paris weather"
{OPEN}{{"name": "get_weather", "arguments": {{"location": "Paris"}}}}{CLOSE}

"Send email to John about meeting and open browser"
{OPEN}{{"name": "send_email", "arguments": {{"to": "John", "subject": "meeting"}}}}{CLOSE}
{OPEN}{{"name": "open_browser", "arguments": {{}}}}{CLOSE}

Respond conversationally if no matching tools exist."""


# --- the grammar ---


def call_grammar(tools: Sequence[ChatTool]) -> str:
    """Return a Lark grammar that allows one call to one of the tools.

    The arguments match the tool's schema.
    """
    alternatives = " | ".join(f"call_{index}" for index in range(len(tools)))
    lines = [f"start: {alternatives}"]
    for index, tool in enumerate(tools):
        head = json.dumps(f'{OPEN}{{"name": {json.dumps(tool.name)}, "arguments": ')
        tail = json.dumps("}" + CLOSE)
        lines += [
            f"call_{index}: {head} arguments_{index} {tail}",
            f"arguments_{index}: %json {json.dumps({**_bounded(tool.parameters), 'x-guidance': _COMPACT})}",
        ]
    return "\n".join(lines)


def _schema_text(schema: Mapping[str, Any] | bool) -> str:
    return json.dumps({**schema, "x-guidance": _COMPACT} if not isinstance(schema, bool) else schema)


def _bounded(schema: Any) -> Any:  # a JSON Schema at any depth
    """Return a schema with limits where it has none, since a small model may never end a string."""
    if isinstance(schema, list):
        return [_bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounded = {key: value if key in {"enum", "const", "default"} else _bounded(value) for key, value in schema.items()}
    match schema.get("type"):
        case "string" if not schema.keys() & {"maxLength", "pattern", "format", "enum", "const"}:
            bounded["maxLength"] = max(MAX_ARGUMENT_CHARS, _count(schema.get("minLength")))
        case "array" if "maxItems" not in schema:
            bounded["maxItems"] = max(MAX_ARGUMENT_ITEMS, _count(schema.get("minItems")))
        case "integer" if not schema.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"}:
            bounded |= {"minimum": -MAX_ARGUMENT_INTEGER, "maximum": MAX_ARGUMENT_INTEGER}
    return bounded


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
