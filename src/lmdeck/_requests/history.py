"""Message histories in the form that LM Studio accepts.

Content is never null; call ids are present and unique. New ids have nine letters and digits, which every prompt template
accepts; the results that follow get the same ids. The caller's messages are never modified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import msgspec
from msgspec import Struct, field

from lmdeck._arguments import checked_list
from lmdeck._compatibility import CompatibilityFixes
from lmdeck._parsing.call_ids import new_call_id
from lmdeck._requests.message_order import chat_order
from lmdeck.errors import ConfigurationError
from lmdeck.messages import ROLES, Message, ToolCall, not_a_message


def checked_messages(messages: Iterable[Message | Mapping[str, Any]]) -> list[Message | Mapping[str, Any]]:
    """Return the messages of an argument as a list.

    Raises:
        ConfigurationError: It is not a list, or one of its items is not a message.
    """
    checked = checked_list(messages, "messages", 'Pass a list: [{"role": "user", "content": "…"}].')
    for message in checked:
        if not isinstance(message, (Message, Mapping)):
            raise not_a_message(message)
    return checked


def normal_messages(
    messages: Iterable[Message | Mapping[str, Any]],
    fixes: CompatibilityFixes,
    new_id: Callable[[], str] = new_call_id,
) -> list[dict[str, Any]]:
    """Return the messages in the form that LM Studio accepts, and record the changes in `fixes`.

    Raises:
        ConfigurationError: A message has an unknown role, content of a wrong type, or a call without a name.
    """
    ids = CallIds(fixes, new_id)
    normal: list[dict[str, Any]] = []
    has_results = False
    for position, message in enumerate(messages):
        each = _normal(message, position, fixes, ids)
        has_results = has_results or each["role"] == "tool"
        normal.append(each)
    fixes.problems += chat_order(normal)
    if not has_results:
        return normal
    from lmdeck._requests.tool_images import with_images_after_results

    return list(with_images_after_results(normal, fixes))


def _normal(
    message: Message | Mapping[str, Any], position: int, fixes: CompatibilityFixes, ids: CallIds
) -> dict[str, Any]:
    normal = message.to_dict() if isinstance(message, Message) else dict(message)
    where = f"Message {position}"
    if normal.get("role") not in ROLES:
        raise ConfigurationError(
            f"{where} has the role {normal.get('role')!r}; it must be one of {', '.join(ROLES)}.",
            hint="Correct the message's `role`.",
        )
    if not isinstance(normal.get("content"), str):
        normal["content"] = _content(normal, where, fixes)
    calls = normal.pop("tool_calls", None)
    if calls:
        normal["tool_calls"] = [ids.call(call, where) for call in calls]
    if normal["role"] == "tool":
        normal["tool_call_id"] = ids.result(normal.get("tool_call_id"), where)
    return normal


def _content(
    message: Mapping[str, Any], where: str, fixes: CompatibilityFixes
) -> Any:  # text, parts, or the caller's value
    """Return content that is not text in a form that LM Studio accepts."""
    if "content" not in message:
        return ""
    content = message["content"]
    if content is None:
        return "" if fixes.apply("null_content", f"{where}: null content was sent as an empty string.") else None
    if message["role"] == "tool":
        return _result(content, where, fixes)
    if _are_parts(content, any_mapping=True):
        return [_part(part, fixes) for part in content]
    raise ConfigurationError(
        f"{where}: content must be text or a list of parts, not {type(content).__name__}.",
        hint="Pass a string, or OpenAI-style content parts.",
    )


def _result(content: object, where: str, fixes: CompatibilityFixes) -> Any:  # text, parts, or the caller's value
    """Return a tool's result as text, or as parts if one of them is not text.

    Some servers refuse a list of texts (lastmile-ai/mcp-agent#25).
    """
    if not _are_parts(content, any_mapping=False):
        is_changed = fixes.apply("json_text", f"{where}: the tool's result was sent as JSON text.")
        return _as_json(content, where) if is_changed else content
    is_text = all(part["type"] == "text" and isinstance(part.get("text"), str) for part in content)
    if is_text and fixes.apply("json_text", f"{where}: the text parts of the tool's result were sent as one text."):
        return "\n".join(part["text"] for part in content)
    return [_part(part, fixes) for part in content]


def _are_parts(content: object, *, any_mapping: bool) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Whether a list consists of content parts; a tool's result may be any list."""
    if not isinstance(content, (list, tuple)) or not (content or any_mapping):
        return False
    return all(isinstance(part, Mapping) and (any_mapping or isinstance(part.get("type"), str)) for part in content)


def _part(part: Mapping[str, Any], fixes: CompatibilityFixes) -> dict[str, Any]:
    """Return a content part with its image checked; parts of other types are unchanged."""
    if part.get("type") != "image_url" or not fixes.is_enabled("images"):
        return dict(part)
    from lmdeck._requests.images import checked_url

    image = part.get("image_url")
    details = dict(image) if isinstance(image, Mapping) else {"url": image}
    return {**part, "image_url": {**details, "url": checked_url(str(details.get("url", "")), fixes)}}


def _as_json(value: object, where: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{where} cannot be written as JSON: {error}.", hint="Pass text or plain data."
        ) from error


class CallIds(Struct):
    """The call ids of a history: the ids in use, and the calls that still have no result."""

    fixes: CompatibilityFixes
    new_id: Callable[[], str] = new_call_id
    used: set[str] = set()
    waiting: deque[tuple[str, str]] = field(default_factory=deque)

    def call(self, call: object, where: str) -> dict[str, Any]:
        """Return a call with a unique id and its arguments as text.

        Raises:
            ConfigurationError: The call has no function name, or arguments that JSON cannot represent.
        """
        call = call.to_dict() if isinstance(call, ToolCall) else call
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not function.get("name"):
            raise ConfigurationError(
                f"{where} has a tool call without a function name.",
                hint="Append `reply.message` to the history instead of writing calls by hand.",
            )
        id_ = self.unique(call.get("id"), where)
        return {"id": id_, "type": "function", "function": self._function(function, where)}

    def unique(self, original: object, where: str) -> str:
        """Return the id to send for a call: the original one unless it is missing or in use."""
        written = str(original or "")
        id_ = written
        if not written or written in self.used:
            fresh = self._fresh()
            what = f"the repeated call id {written!r}" if written else "a missing call id"
            if self.fixes.apply("call_ids", f"{where}: {what} was replaced by {fresh!r}."):
                id_ = fresh
        self.used.add(id_)
        self.waiting.append((written, id_))
        return id_

    def _function(self, function: Mapping[str, Any], where: str) -> dict[str, Any]:
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            return {"name": str(function["name"]), "arguments": arguments if arguments.strip() else "{}"}
        if arguments and not self.fixes.apply("json_text", f"{where}: a call's arguments were sent as JSON text."):
            return {"name": str(function["name"]), "arguments": arguments}
        return {"name": str(function["name"]), "arguments": _as_json(arguments or {}, where)}

    def result(self, original: object, where: str) -> str:
        """Return the id of the call that a result belongs to.

        For a result without an id, it is the first call without a result.

        Raises:
            ConfigurationError: The result has no id, and every call has a result.
        """
        written = str(original or "")
        for entry in self.waiting:
            if entry[0] == written:
                self.waiting.remove(entry)
                return entry[1]
        if written or not self.fixes.is_enabled("call_ids"):
            return written
        if not self.waiting:
            raise ConfigurationError(
                f"{where} is a tool's result, but every call before it has a result.",
                hint="Insert the assistant's message with the call before it.",
            )
        _, id_ = self.waiting.popleft()
        self.fixes.apply("call_ids", f"{where}: the missing tool_call_id was set to {id_!r}.")
        return id_

    def _fresh(self) -> str:
        while (id_ := self.new_id()) in self.used:
            continue
        return id_
