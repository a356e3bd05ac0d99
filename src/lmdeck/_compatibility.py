"""Named rules that make requests acceptable to LM Studio, and a record of changes.

Each rule avoids a refusal by LM Studio. Other servers may accept what it refuses, so each rule can be switched off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from lmdeck.errors import ConfigurationError
from lmdeck.messages import Problem

ALL = "all"
RULES = {
    "null_content": "A null `content` of a message is sent as an empty string.",
    "call_ids": "Missing and repeated ids of tool calls are replaced, in the calls and in their results.",
    "json_text": "Arguments of calls and results of tools that are not text are sent as JSON text; text parts are joined.",
    "tool_choice": "A tool's name, or OpenAI's object for it, is sent as `required` with only that tool.",
    "tool_parameters": "A tool without an object schema gets an empty one.",
    "schemas": "References in a schema are inlined, and lists of types become `anyOf`.",
    "simpler_schemas": "Tools that the server's grammar compiler refuses are sent again without the unsupported keywords.",
    "json_object": "The response format `json_object` is sent as a `json_schema` that allows any object.",
    "images": "Images are checked; WebP, GIF and BMP are sent as PNG, and images with too many pixels are scaled down.",
    "tool_images": "Images in a tool's result are sent in a user message after the results.",
    "include_usage": "Streams are sent with `stream_options.include_usage`; not reported, since the answer stays the same.",
    "empty_text": "An empty `text` of `/v1/responses` is omitted.",
    "system_messages": "System messages of `/v1/messages` are sent as `system`.",
    "developer_role": "For other clients: the role `developer` is sent as `system`.",
    "server_tools": "For other clients: tools that only the vendor's servers run, and their results, are omitted.",
    "custom_tools": "For other clients: OpenAI's custom tools are sent as functions with one text argument.",
    "content_parts": "For other clients: content parts that LM Studio does not support are renamed, moved or omitted.",
    "single_input": "For other clients: a list with one prompt is sent as that prompt.",
    "base64_embeddings": "For other clients: base64 embeddings are requested as numbers and packed by lmdeck.",
}


def rules() -> dict[str, str]:
    """Return every rule that makes requests acceptable to LM Studio: its name and what it does."""
    return dict(RULES)


def check_rules(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of rules, with `"all"` expanded.

    Raises:
        ConfigurationError: A name is not the name of a rule.
    """
    known = (*RULES, ALL)
    names = tuple(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is not a request rule.", hint=f"The rules are: {', '.join(RULES)}; or {ALL!r}."
        )
    return tuple(RULES) if ALL in names else tuple(dict.fromkeys(names))


class CompatibilityFixes(Struct):
    """The rules that are enabled for one request, all but those in `off`.

    `problems` has one entry for each change made.
    """

    off: Collection[str] = ()
    problems: list[Problem] = []

    def is_enabled(self, rule: str) -> bool:
        """Whether a rule is enabled."""
        return rule not in self.off

    def apply(self, rule: str, detail: str) -> bool:
        """Whether a rule is enabled; if so, record the change as a problem."""
        if not self.is_enabled(rule):
            return False
        self.problems.append(Problem("adjusted", detail, rule=rule))
        return True
