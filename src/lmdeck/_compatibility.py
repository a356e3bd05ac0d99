"""The rules that make a request acceptable to LM Studio, by name, and what they changed in one request.

Each rule answers a refusal of LM Studio's; another server may take what it refuses, so each can be turned off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lmdeck.errors import ConfigurationError
from lmdeck.messages import Problem

ALL = "all"
RULES = {
    "null_content": "A message's content null is sent as an empty text.",
    "call_ids": "Missing and repeated ids of tool calls are replaced, in the calls and in their results.",
    "json_text": "A call's arguments and a tool's result that are no text are sent as JSON text.",
    "tool_choice": "A tool's name, or OpenAI's object for it, is sent as `required` with that tool alone.",
    "tool_parameters": "A tool without an object schema gets an empty one.",
    "schemas": "References in a schema are written out, and lists of types become `anyOf`.",
    "simpler_schemas": "Tools that the server's grammar compiler refuses are sent once more without what it cannot compile.",
    "json_object": "The response format `json_object` is sent as a `json_schema` that takes any object.",
    "images": "Images are checked; WebP, GIF and BMP are sent as PNG, and images of too many pixels are scaled down.",
    "tool_images": "Images in a tool's result are sent in a user message after the results.",
    "include_usage": "A stream is asked for its usage, `stream_options.include_usage`; not reported, since nothing is changed.",
    "empty_text": "An empty `text` of `/v1/responses` is left out.",
    "system_messages": "System messages of `/v1/messages` are sent as `system`.",
    "developer_role": "For other clients: the role `developer` is sent as `system`.",
    "server_tools": "For other clients: tools that only their vendor's servers run, and what came of them, are left out.",
    "custom_tools": "For other clients: OpenAI's custom tools are sent as functions with one text argument.",
    "content_parts": "For other clients: content parts that LM Studio does not know are renamed, moved or left out.",
    "single_input": "For other clients: a list with one prompt is sent as that prompt.",
    "base64_embeddings": "For other clients: embeddings in base64 are asked for as numbers and packed by lmdeck.",
}


def rules() -> dict[str, str]:
    """Give every rule by which requests are made acceptable to LM Studio: its name, and what it does."""
    return dict(RULES)


def check_rules(names: Iterable[str]) -> tuple[str, ...]:
    """Give names of rules, `"all"` written out.

    Raises:
        ConfigurationError: There is no rule of that name.
    """
    given = list(dict.fromkeys(names))
    unknown = [name for name in given if name not in RULES and name != ALL]
    if unknown:
        raise ConfigurationError(
            f"There is no request rule {unknown[0]!r}.", hint=f"Rules are: {', '.join(RULES)}; or {ALL!r}."
        )
    return tuple(RULES) if ALL in given else tuple(given)


class CompatibilityFixes:
    """What may be changed in one request, and what was: `problems` has one entry for each change."""

    def __init__(self, off: Collection[str] = (), problems: Iterable[Problem] = ()) -> None:
        self._off = frozenset(off)
        self.problems = list(problems)

    def is_enabled(self, rule: str) -> bool:
        """Tell whether a rule is on."""
        return rule not in self._off

    def apply(self, rule: str, detail: str) -> bool:
        """Tell whether a rule is on, and if so report what is changed by it."""
        if not self.is_enabled(rule):
            return False
        self.problems.append(Problem("adjusted", detail, rule=rule))
        return True
