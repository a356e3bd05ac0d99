"""The doctor's checks of a model.

They are an answer, the context length, a tool call, and structured output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lmdeck._parsing.dialects import dialects
from lmdeck._parsing.parser import parse
from lmdeck._responses.json_bodies import decoded_or_text
from lmdeck.cli.doctor.context import CheckSkipped, CheckWarning, DoctorContext
from lmdeck.cli.waiting import waiting
from lmdeck.errors import EmptyReplyError, LMStudioError, TransportError
from lmdeck.messages import Reply, ToolCall
from lmdeck.tools.checker import Checker

SMALL_CONTEXT = 4096  # LM Studio's default; one tool schema and a short conversation fill it
BETTER_CONTEXT = 16_384
ANSWER_TOKENS = 1024  # reasoning models need hundreds of tokens before the first word
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CAPITAL = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "letters": {"type": "integer"}},
    "required": ["capital", "letters"],
    "additionalProperties": False,
}


def check_answer(context: DoctorContext) -> str:
    """Request one token, and report the total time."""
    with waiting("requesting one token"):
        try:
            reply = context.lm.chat().user("Say yes.").with_options(max_tokens=1, temperature=0).send()
        except EmptyReplyError as error:  # the only token may be a marker without text, such as `<think>`
            if error.partial is None or error.partial.finish_reason != "length":
                raise
            reply = error.partial
    took = reply.stats.measured.total_time
    seconds = "" if took is None else f" in {took:.2f} s"
    return f"{reply.model} answered with one token{seconds}{_load_time(reply)}"


def _load_time(reply: Reply) -> str:
    loading = reply.stats.model_load_time
    return f", {loading:.1f} s of it loading" if loading else ""


def check_context(context: DoctorContext) -> str:
    """Report the context length of the loaded instance."""
    model, instance = context.find(context.wanted)
    if instance is None and context.health.api != "openai":  # the check "answer" may have loaded it
        context.models = context.lm.models.list()
        model, instance = context.find(context.wanted)
    if model is None or instance is None or instance.context_length is None:
        raise CheckSkipped("this server does not report the context length")
    most = model.max_context_length or instance.context_length
    shown = f"{instance.context_length} tokens of at most {most}"
    if instance.context_length > SMALL_CONTEXT or most <= instance.context_length:
        return shown
    raise CheckWarning(
        f"{shown}: a long prompt or several tools will not fit",
        f"Reload it with a larger context: `lmdeck models unload {instance.id}`, then "
        f"`lmdeck models load {model.key} --context-length {min(most, BETTER_CONTEXT)}`.",
    )


def check_tools(context: DoctorContext) -> str:
    """Request a tool call, and report in which form it arrived."""
    chat = context.lm.chat().user("What is the weather in Paris now? Use the tool.").with_tools([WEATHER])
    options = {"max_tokens": ANSWER_TOKENS, "temperature": 0}
    reply = _send_optional("requesting a tool call", chat.with_tool_choice("required").with_options(**options).send)
    if not reply.tool_calls:
        raise CheckWarning(
            f"no tool call arrived although one was required; instead: {_excerpt(reply)}",
            "Use a model trained for tool use (`lmdeck models --json`, capability trained_for_tool_use).",
        )
    call = reply.tool_calls[0]
    errors = [f"it calls {call.name!r}"] if call.name != "get_weather" else _argument_errors(call)
    if errors:
        raise CheckWarning(
            f"the call does not match the tool: {errors[0]}", "Use a larger model, or one trained for tool use."
        )
    return f"get_weather({call.raw_arguments}), {_form(reply)}"


def _argument_errors(call: ToolCall) -> list[str]:
    return Checker(WEATHER["function"]["parameters"], "The tool").errors(call.arguments)  # type: ignore[index]


def _form(reply: Reply) -> str:
    """Return where the call was found: in the API's field, or in the text, in which dialect."""
    message = _message(reply)
    if message.get("tool_calls"):
        return "native"
    for where in ("content", "reasoning_content", "reasoning"):
        text = message.get(where)
        if not isinstance(text, str):
            continue
        dialect = next((name for name in dialects() if parse(text, [WEATHER], dialect=name).tool_calls), None)
        if dialect is not None:
            return f"found in the {where.partition('_')[0]}, dialect {dialect}"
    return "found in the text"


def _message(reply: Reply) -> Mapping[str, Any]:
    """Return the message of a response that was not streamed, as the server sent it."""
    body = decoded_or_text(reply.raw) if isinstance(reply.raw, bytes) else None
    choices = body.get("choices") if isinstance(body, Mapping) else None
    message = choices[0].get("message") if isinstance(choices, list) and isinstance(choices[0], Mapping) else None
    return message if isinstance(message, Mapping) else {}


def check_structured(context: DoctorContext) -> str:
    """Request a JSON object, and check whether the server enforces its schema."""
    response_format = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": CAPITAL}}
    chat = context.lm.chat().user("The capital of France, and how many letters it has, as JSON.")
    options = {"response_format": response_format, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    reply = _send_optional("requesting an object", chat.with_options(**options).send)
    try:
        errors = Checker(CAPITAL, "The answer").errors(msgspec.json.decode(reply.content))
    except msgspec.DecodeError:
        errors = ["it is not JSON"]
    if errors:
        raise CheckWarning(
            f"the answer does not match the schema ({errors[0]}): {_excerpt(reply)}",
            "`chat.parse` checks, repairs and retries; a larger model helps (LM Studio's docs say at least 7B).",
        )
    return "the answer matches the schema"


def _send_optional(what: str, send: Callable[[], Reply]) -> Reply:
    """Send an optional request.

    Errors of the model become a warning, transport errors propagate.
    """
    with waiting(what):
        try:
            return send()
        except TransportError:
            raise
        except LMStudioError as error:
            raise CheckWarning(error.message, error.hint) from error


def _excerpt(reply: Reply) -> str:
    text = " ".join((reply.content or reply.reasoning).split())
    excerpt = repr(text if len(text) <= 80 else f"{text[:79]}…")
    return f"{excerpt} (cut off after {ANSWER_TOKENS} tokens)" if reply.finish_reason == "length" else excerpt
