"""Resolve a tool call: find its tool, validate its arguments, build its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from lmdeck._compatibility import CompatibilityFixes
from lmdeck._requests.images import checked_url, image_part
from lmdeck._text import replace_lone_surrogates
from lmdeck.errors import (
    ConfigurationError,
    InvalidRequestError,
    LMStudioError,
    ToolArgumentsError,
    ToolExecutionError,
    UnknownToolError,
)
from lmdeck.messages import Problem, ToolCall, ToolResult
from lmdeck.tools.result import read_result, shortened
from lmdeck.tools.tool import Tool, ToolFailed
from lmdeck.tools.validation import coerced_arguments, typed_arguments

ADVICE = "Correct the arguments and call the tool again."
AGAIN = "[You have already made this call; the result is the same. Use it, or answer without the tool.]"
ONE_AT_A_TIME = "This call was not run: only one call at a time is allowed. Repeat it if you still need it."


class PreparedCall(Struct, frozen=True, kw_only=True):
    """A validated call: its tool, the typed `arguments`, and these as JSON data (`plain`)."""

    call: ToolCall
    tool: Tool[..., Any]
    arguments: dict[str, Any]
    plain: dict[str, Any]
    problems: list[Problem]


def prepare(call: ToolCall, tools: Mapping[str, Tool[..., Any]]) -> PreparedCall | ToolResult:
    """Return a call that can be run, or the result for an unknown tool or invalid arguments.

    Raises:
        ConfigurationError: The tool's schema is not a JSON Schema.
    """
    tool = tools.get(call.name)
    if tool is None:
        offered = ", ".join(tools) or "none"
        error = UnknownToolError(
            f"The model called {call.name!r}, which is not an offered tool.", hint=f"The offered tools are: {offered}."
        )
        return _rejected(call, f"There is no tool named {call.name!r}. The tools are: {offered}.", error)
    try:
        plain, problems = coerced_arguments(tool, call)
        arguments = typed_arguments(tool, call, plain)
    except ToolArgumentsError as error:
        lines = "\n".join(f"- {line}" for line in error.errors)
        return _rejected(call, f"The arguments do not match the tool's schema:\n{lines}\n{ADVICE}", error)
    return PreparedCall(call=call, tool=tool, arguments=arguments, plain=plain, problems=problems)


def finished(ready: PreparedCall, value: object, seconds: float) -> ToolResult:
    """Return the result of a handler that returned; its text names images that cannot be shown."""
    try:
        text, images = read_result(value)
    except TypeError as error:
        return failed(ready, error, seconds)
    problems = list(ready.problems)
    urls = []
    for number, image in enumerate(images, 1):
        try:
            url = str(image_part(image)["image_url"]["url"])
            checked_url(url, CompatibilityFixes())  # one that cannot be converted would end the run at the next request
            urls.append(url)
        except (ConfigurationError, InvalidRequestError) as error:
            text += f"\n[image {number} cannot be shown: {error.message}]"
            problems.append(Problem("image_dropped", f"{ready.call.name}: image {number}: {error}"))
    return ToolResult(call=ready.call, content=text, value=value, seconds=seconds, problems=problems, images=urls)


def failed(ready: PreparedCall, error: Exception, seconds: float) -> ToolResult:
    """Return the result of a handler that raised.

    Its text is the message of a `ToolFailed`; for other exceptions, only the type.
    """
    name = ready.call.name
    raised = ToolExecutionError(f"The tool {name!r} raised {type(error).__name__}: {error}")
    raised.__cause__ = error
    text = (
        shortened(replace_lone_surrogates(str(error)))
        if isinstance(error, ToolFailed)
        else f"The tool {name!r} failed with {type(error).__name__}."
    )
    return ToolResult(call=ready.call, content=text, error=raised, seconds=seconds, problems=ready.problems)


def timed_out(ready: PreparedCall, limit: float) -> ToolResult:
    """Return the result of a handler that did not finish in time."""
    error = ToolExecutionError(
        f"The tool {ready.call.name!r} did not finish within {limit:g} s.",
        hint="Increase `tool_timeout`, or make the tool faster.",
    )
    error.__cause__ = TimeoutError(f"{limit:g} s")
    text = f"The tool {ready.call.name!r} did not finish within {limit:g} seconds."
    return ToolResult(call=ready.call, content=text, error=error, seconds=limit, problems=ready.problems)


def refused(ready: PreparedCall, reason: str) -> ToolResult:
    """Return the result of a call that was not approved."""
    text = f"The user did not allow this call{f': {reason}' if reason else ''}."
    error = ToolExecutionError(
        f"The call of {ready.call.name!r} was not approved.", hint="The function `approve` of the run decides on calls."
    )
    return ToolResult(call=ready.call, content=text, error=error, problems=ready.problems)


def shared(call: ToolCall, result: ToolResult, calls: int) -> ToolResult:
    """Return the result of an equal call in the same answer, for a call that was not run itself."""
    note = Problem(
        "repeated_call", f"{call.name}: {calls} equal calls in one answer were run once and share the result."
    )
    return replace(result, call=call, repeated=True, seconds=0.0, problems=[note], images=[])


def repeated(call: ToolCall, earlier: ToolResult) -> ToolResult:
    """Return the result of an equal call in an earlier round, for a call that is not run again."""
    note = Problem("repeated_call", f"{call.name}: the call was made before and not run again; the result is the same.")
    text = f"{earlier.content}\n\n{AGAIN}"
    return replace(earlier, call=call, content=text, repeated=True, seconds=0.0, problems=[note], images=[])


def not_run(call: ToolCall) -> ToolResult:
    """Return the result of a call that was not run because the answer may have only one call."""
    note = Problem("parallel_calls", f"{call.name}: the call was not run because parallel_tool_calls is False.")
    return ToolResult(call=call, content=ONE_AT_A_TIME, problems=[note])


def was_run(result: ToolResult) -> bool:
    """Whether the handler was run for this call: its result is not shared, repeated or deferred."""
    return not result.repeated and not any(problem.code == "parallel_calls" for problem in result.problems)


def _rejected(call: ToolCall, text: str, error: LMStudioError) -> ToolResult:
    return ToolResult(call=call, content=text, error=error)
