"""Hints about the messages of a conversation, and about answers that the server stores."""

from __future__ import annotations

from lmdeck._responses.any_pattern import AnyPattern, about
from lmdeck._responses.error_expressions import FORGOTTEN

CALL_IDS = (
    AnyPattern(r"tool call ids? (should|must)", r"\btool_call_id\b.{0,40}\b(must|should|invalid)"),
    "The model's template demands ids of tool calls in the form that the message names: use such ids in the history.",
)
DAMAGED_STORE = (
    AnyPattern(
        r"prediction history node",
        r"not found in shard",
        about(
            r"stored (?:response|answer)s?",
            r"(?:could not|cannot|failed to|unable to) (?:be )?(?:read|parse|open|load)",
        ),
    ),
    (
        "LM Studio's stored answers are damaged: delete `.internal/api-prediction-history/packs` in its folder, send with "
        "`store=False`, or pass `recover=True` to a conversation to send its history again (bug tracker #1522)."
    ),
)
# What the chat template of the model demands of roles and messages.
ORDER = (
    (
        AnyPattern(r"no user query found"),
        "Keep a user message with text in the history: the model's template requires one, even after tool results.",
    ),
    (
        AnyPattern(r"cannot pass both content and thinking"),
        "Send assistant messages with calls either with content or with reasoning, not both; or update the model's template.",
    ),
    (
        AnyPattern(r"invalid '?messages'? in payload"),
        "Every message needs a role and content, every call a function, and every tool result its tool_call_id.",
    ),
    (
        AnyPattern(
            r"\broles? must alternate",
            r"consecutive (user|assistant|system)",
            r"no previous (assistant )?message",
            r"\bsystem (message|role)\b.{0,60}\b(beginning|first|start)\b",
            r"(tool|assistant) (message|role)\b.{0,60}\b(must|should) (follow|be preceded|come)",
            r"must be a response to a preceding",
            r"\blast message must be\b",
            r"unexpected (role|`?tool_use_id`?)",
            r"got system\b",
            about(r"system (?:role|message|prompt)s?", r"not support(?:ed)?|unsupported|not allowed"),
            r"roles are supported",
            r"assistant (messages|response prefill)\b",
        ),
        (
            "Check the order of the messages: a system message first, user and assistant alternating (join two in a row), and "
            "each tool message directly after the assistant message with its call."
        ),
    ),
)
REASONING = (
    (
        AnyPattern(r"\breasoning(_content)?\b.{0,60}\b(missing|required|must be (passed|sent|provided|included))\b"),
        "Keep the reasoning of earlier answers in the history (append `reply.message`), or turn reasoning off.",
    ),
    (
        AnyPattern(r"\bencrypted[ _]content\b"),
        "Leave the reasoning items out of `input`: the server cannot read those of an earlier answer.",
    ),
)
INPUT_TYPE = (
    AnyPattern(r"invalid type for 'input'"),
    "Send text, or a list of messages with text, to /v1/responses; send images with lm.chat() instead.",
)
STORED_ANSWERS = (
    (
        AnyPattern(
            r"not support '?`?previous_response_id",
            r"previous_response_id'?`? (is )?(not supported|unsupported|ignored)",
        ),
        "This server does not store answers: send the whole history as `input`, or use lm.chat() with its messages.",
    ),
    (
        AnyPattern(r"previous.?response", *FORGOTTEN),
        "The server no longer has that answer: start a new conversation, or pass `recover=True` to send its history again.",
    ),
)
OTHER = (
    AnyPattern(r"\b(messages?|content|roles?|assistant)\b"),
    "Correct the message that the error names: each needs a role, and content that is not empty.",
)
