"""What a model can do, as the doctor asks it: a word, a tool call, an object; and how much it can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lmdeck._parsing.dialects import dialects
from lmdeck._parsing.parser import parse
from lmdeck._responses.api_errors import decoded_or_text
from lmdeck.cli.doctor.context import Concern, NotKnown, Patient
from lmdeck.cli.waiting import waiting
from lmdeck.errors import EmptyReplyError, LMStudioError, TransportError
from lmdeck.messages import Reply, ToolCall
from lmdeck.tools.checker import Checker

__all__ = ["check_answer", "check_context", "check_structured", "check_tools"]

SMALL_CONTEXT = 4096  # LM Studio's own default, which a tool's schema and a short conversation fill
BETTER_CONTEXT = 16_384
ANSWER_TOKENS = 1024  # a model that reasons thinks first, even for a word
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CAPITAL = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "letters": {"type": "integer"}},
    "required": ["capital", "letters"],
    "additionalProperties": False,
}


def check_answer(patient: Patient) -> str:
    """Ask for one token, and say how long the whole way takes."""
    with waiting("asking for one token"):
        try:
            reply = patient.lm.chat().user("Say yes.").with_options(max_tokens=1, temperature=0).send()
        except EmptyReplyError as error:  # the one token may be a mark that is no text, such as `<think>`
            if error.partial is None or error.partial.finish_reason != "length":
                raise
            reply = error.partial
    took = reply.stats.measured.total_time
    seconds = "" if took is None else f" in {took:.2f} s"
    return f"{reply.model} answered with one token{seconds}{_load_time(reply)}"


def _load_time(reply: Reply) -> str:
    loading = reply.stats.model_load_time
    return f", {loading:.1f} s of it loading" if loading else ""


def check_context(patient: Patient) -> str:
    """Say how much the loaded instance can hold."""
    model, instance = patient.find(patient.wanted)
    if instance is None and patient.health.api != "openai":  # the answer may just have loaded it
        patient.models = patient.lm.models.list()
        model, instance = patient.find(patient.wanted)
    if model is None or instance is None or instance.context_length is None:
        raise NotKnown("this server does not tell how much context the model has")
    most = model.max_context_length or instance.context_length
    shown = f"{instance.context_length} tokens of at most {most}"
    if instance.context_length > SMALL_CONTEXT or most <= instance.context_length:
        return shown
    raise Concern(
        f"{shown}: a long prompt, or a few tools, will not fit",
        f"Load it anew with more: `lmdeck models unload {instance.id}`, then "
        f"`lmdeck models load {model.key} --context-length {min(most, BETTER_CONTEXT)}`.",
    )


def check_tools(patient: Patient) -> str:
    """Ask for a tool call, and say in which form it came."""
    chat = patient.lm.chat().user("What is the weather in Paris now? Use the tool.").with_tools([WEATHER])
    options = {"max_tokens": ANSWER_TOKENS, "temperature": 0}
    reply = _try("asking for a tool call", chat.with_tool_choice("required").with_options(**options).send)
    if not reply.tool_calls:
        raise Concern(
            f"no tool call came though one was required; instead: {_shown(reply)}",
            "Use a model trained for tool use (`lmdeck models --json`, capability trained_for_tool_use).",
        )
    call = reply.tool_calls[0]
    faults = [f"it calls {call.name!r}"] if call.name != "get_weather" else _faults(call)
    if faults:
        raise Concern(
            f"the call does not fit the tool: {faults[0]}", "Use a larger model, or one trained for tool use."
        )
    return f"get_weather({call.raw_arguments}), {_form(reply)}"


def _faults(call: ToolCall) -> list[str]:
    return Checker(WEATHER["function"]["parameters"], "The tool").errors(call.arguments)  # type: ignore[index]


def _form(reply: Reply) -> str:
    """Say how the call came: as the API's own, or written into the text, and in which dialect."""
    message = _message(reply)
    if message.get("tool_calls"):
        return "native"
    for where in ("content", "reasoning_content", "reasoning"):
        text = message.get(where)
        if not isinstance(text, str):
            continue
        spoken = next((name for name in dialects() if parse(text, [WEATHER], dialect=name).tool_calls), None)
        if spoken is not None:
            return f"found in the {where.partition('_')[0]}, dialect {spoken}"
    return "found in the text"


def _message(reply: Reply) -> Mapping[str, Any]:
    """Give the message of an answer that was not streamed as the server sent it."""
    body = decoded_or_text(reply.raw) if isinstance(reply.raw, bytes) else None
    choices = body.get("choices") if isinstance(body, Mapping) else None
    message = choices[0].get("message") if isinstance(choices, list) and isinstance(choices[0], Mapping) else None
    return message if isinstance(message, Mapping) else {}


def check_structured(patient: Patient) -> str:
    """Ask for an object, and see whether the server holds the model to its schema."""
    response_format = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": CAPITAL}}
    chat = patient.lm.chat().user("The capital of France, and how many letters it has, as JSON.")
    options = {"response_format": response_format, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    reply = _try("asking for an object", chat.with_options(**options).send)
    try:
        faults = Checker(CAPITAL, "The answer").errors(msgspec.json.decode(reply.content))
    except msgspec.DecodeError:
        faults = ["it is no JSON"]
    if faults:
        raise Concern(
            f"the answer does not follow the schema ({faults[0]}): {_shown(reply)}",
            "`chat.parse` checks, repairs and asks again; a larger model helps (LM Studio names 7B as what it takes).",
        )
    return "the answer follows the schema"


def _try(what: str, send: Callable[[], Reply]) -> Reply:
    """Ask for what not every model can; what keeps it from answering is a concern, unless the way there broke."""
    with waiting(what):
        try:
            return send()
        except TransportError:
            raise
        except LMStudioError as error:
            raise Concern(error.message, error.hint) from error


def _shown(reply: Reply) -> str:
    text = " ".join((reply.content or reply.reasoning).split())
    words = repr(text if len(text) <= 80 else f"{text[:79]}…")
    return f"{words} (cut off after {ANSWER_TOKENS} tokens)" if reply.finish_reason == "length" else words
